"""Direct MX, whole: the gateway, a real dnsmasq, and mail servers on several addresses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import dkim
import msgspec
import pytest

from engine.model import Provider
from engine.results import Blame, Disposition, Result, ResultRow
from tests.gateways.smtp.desk import Node, order_of, provider_of, running
from tests.gateways.smtp.faulty import FaultyMta, Script, drop, faulty_mta
from tests.support import free_port
from tests.support.mail.dkim_keys import Keys
from tests.support.mail.dns import dnsmasq
from tests.support.mail.postfix import postfix

FIRST, SECOND, THIRD = "127.0.0.2", "127.0.0.3", "127.0.0.4"
HOSTS = (
    f"host-record=one.example,{FIRST}",
    f"host-record=two.example,{SECOND}",
    f"host-record=three.example,{THIRD}",
)
RECORDS = (
    *HOSTS,
    "mx-host=a.example,one.example,10",
    "mx-host=a.example,two.example,20",
    "mx-host=a.example,three.example,30",
    "mx-host=backup.example,one.example,10",
    "mx-host=backup.example,node.example.org,20",
    "mx-host=backup.example,two.example,30",
    "dns-rr=null.example,15,000000",
    "mx-host=lost.example,gone.example,10",
    f"host-record=plain.example,{SECOND}",
)
GOOD: Script = {}


class Site:
    """A node that sends by MX, and who it may meet."""

    def __init__(self, node: Node, provider: Provider, servers: Mapping[str, FaultyMta]) -> None:
        self._node = node
        self._provider = provider
        self.servers = servers
        self._sent = 0

    async def send(self, recipient: str, **fields: Any) -> Result:
        self._sent += 1
        order = order_of(self._provider, self._sent, destination=recipient, **fields)
        return (await self._node.deliver(order)).result


@asynccontextmanager
async def site(folder: Path, scripts: Mapping[str, Script], **settings: Any) -> AsyncIterator[Site]:
    """``scripts``: mail servers by their address, all on one port."""
    port = free_port()
    async with AsyncExitStack() as stack:
        names = await stack.enter_async_context(dnsmasq(folder / "dns", *RECORDS))
        servers = {
            host: await stack.enter_async_context(faulty_mta(script, host=host, port=port))
            for host, script in scripts.items()
        }
        node = await stack.enter_async_context(
            running(folder / "node", dns_servers=(names.server,))
        )
        provider = msgspec.structs.replace(provider_of(port, **settings), host="")
        await node.provide(provider)
        yield Site(node, provider, servers)


def mails(at: Site) -> dict[str, int]:
    return {host: len(server.mails) for host, server in at.servers.items()}


async def test_the_best_mx_gets_it(tmp_path: Path) -> None:
    async with site(tmp_path, dict.fromkeys((FIRST, SECOND, THIRD), GOOD)) as at:
        result = await at.send("c1@a.example")
        assert result.cause == "accepted"
        assert ResultRow("email", "host", "one.example") in result.rows
        assert mails(at) == {FIRST: 1, SECOND: 0, THIRD: 0}


async def test_an_mx_that_is_down_leaves_it_to_the_next(tmp_path: Path) -> None:
    async with site(tmp_path, {SECOND: GOOD, THIRD: GOOD}) as at:
        result = await at.send("c1@a.example")
        assert result.cause == "accepted"
        assert ResultRow("email", "host", "two.example") in result.rows
        assert mails(at) == {SECOND: 1, THIRD: 0}


@pytest.mark.parametrize(
    "script",
    [
        {"CONNECT": "554 5.7.1 not from you"},
        {"CONNECT": "421 4.3.2 closing"},
        {"MAIL": "421 4.3.2 closing"},
        {"RCPT": drop},
        {"DATA": drop},
    ],
    ids=["554 greeting", "421 greeting", "421 to MAIL", "lost at RCPT", "lost at DATA"],
)
async def test_an_mx_that_takes_nothing_now_leaves_it_to_the_next(
    tmp_path: Path, script: Script
) -> None:
    async with site(tmp_path, {FIRST: script, SECOND: GOOD}) as at:
        assert (await at.send("c1@a.example")).cause == "accepted"
        assert mails(at) == {FIRST: 0, SECOND: 1}


async def test_what_may_have_been_taken_is_not_tried_elsewhere(tmp_path: Path) -> None:
    async with site(tmp_path, {FIRST: {"DOT": drop}, SECOND: GOOD}) as at:
        assert (await at.send("c1@a.example")).cause == "unknown"
        assert mails(at)[SECOND] == 0


@pytest.mark.parametrize(
    ("reply", "cause", "closes"),
    [
        ("450 4.7.1 greylisted", "greylisted", ""),
        ("452 4.2.2 full", "deferred", ""),
        ("550 5.1.1 who?", "no_such_address", "bounce 5.1.1: who?"),
        ("550 5.7.1 no", "policy", ""),
    ],
)
async def test_what_an_mx_says_of_a_recipient_holds(
    tmp_path: Path, reply: str, cause: str, closes: str
) -> None:
    async with site(tmp_path, {FIRST: {"RCPT": reply}, SECOND: GOOD}) as at:
        result = await at.send("c1@a.example")
        assert (result.cause, result.suppress) == (cause, closes)
        assert mails(at)[SECOND] == 0


async def test_when_no_mx_is_up_it_is_put_off_and_the_trunk_is_not_to_blame(
    tmp_path: Path,
) -> None:
    async with site(tmp_path, {}) as at:
        result = await at.send("c1@a.example")
        assert (result.disposition, result.cause) == (Disposition.DEFERRED, "host_unavailable")
        assert result.blame is Blame.NETWORK
        assert result.later_s


@pytest.mark.parametrize(
    ("domain", "why"),
    [
        ("nothing.example", "bounce 5.1.2: no such domain"),
        ("null.example", "bounce 5.1.2: null MX: the domain takes no mail"),
    ],
)
async def test_a_domain_without_mail_closes_the_address(
    tmp_path: Path, domain: str, why: str
) -> None:
    async with site(tmp_path, {}) as at:
        result = await at.send(f"c1@{domain}")
        assert (result.disposition, result.cause) == (Disposition.INVALID, "no_such_domain")
        assert result.suppress == why


@pytest.mark.parametrize("domain", ["lost.example", "elsewhere.invalid"])
async def test_what_dns_does_not_say_is_asked_for_later(tmp_path: Path, domain: str) -> None:
    async with site(tmp_path, {}) as at:
        result = await at.send(f"c1@{domain}")
        assert (result.disposition, result.cause) == (Disposition.DEFERRED, "host_unavailable")
        assert not result.suppress


async def test_mail_we_are_a_backup_for_goes_to_the_better_and_never_back(tmp_path: Path) -> None:
    async with site(tmp_path, {SECOND: GOOD}) as at:
        assert (await at.send("c1@backup.example")).cause == "host_unavailable"
        assert mails(at) == {SECOND: 0}


async def test_a_domain_without_mx_is_its_own_host(tmp_path: Path) -> None:
    async with site(tmp_path, {SECOND: GOOD}) as at:
        result = await at.send("c1@plain.example")
        assert ResultRow("email", "host", "plain.example") in result.rows


async def test_a_real_postfix_as_mx_gets_it_signed_and_within_tls(tmp_path: Path) -> None:
    keys = Keys("example.org")
    async with (
        postfix(tmp_path / "mta", accept="a.example") as mta,
        dnsmasq(
            tmp_path / "dns", "host-record=mx.example,127.0.0.1", "mx-host=a.example,mx.example,10"
        ) as names,
        running(tmp_path / "node", dns_servers=(names.server,)) as node,
    ):
        relay = provider_of(mta.port, starttls="offer", dkim=keys.settings)
        provider = msgspec.structs.replace(relay, host="")
        await node.provide(provider)
        result = (await node.deliver(order_of(provider, destination="c1@a.example"))).result
        assert result.cause == "accepted"
        rows = {row.name: row.data for row in result.rows}
        assert rows["host"] == "mx.example"
        assert rows["tls"].startswith("TLSv1.")  # of a certificate for another name
        [mail] = await mta.wait_messages(1)
        signed = dkim.DKIM(mail.raw)
        assert all(signed.verify(idx=index, dnsfunc=keys.txt) for index in (0, 1))
