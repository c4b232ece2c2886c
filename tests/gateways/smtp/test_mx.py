"""Routes out of DNS: a real dnsmasq, and a responder for what dnsmasq will not do."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import dns.asyncresolver
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.resolver
import dns.rrset
import pytest
import trio

from engine.config import Config, SmtpConfig
from engine.errors import InvalidError
from gateways.smtp import mx
from gateways.smtp.gateway import SmtpGateway
from gateways.smtp.mx import Resolver
from gateways.smtp.mxorder import NoRoute
from gateways.smtp.records import Route
from tests.support.mail.dns import Names, dnsmasq, responder

T = TypeVar("T")

RECORDS = (
    # a.example: two MX of one preference, one behind; each host has both kinds of address
    "mx-host=a.example,one.example,10",
    "mx-host=a.example,two.example,10",
    "mx-host=a.example,last.example,20",
    "host-record=one.example,192.0.2.1,2001:db8::1",
    "host-record=two.example,192.0.2.2",
    "host-record=last.example,192.0.2.3",
    # without MX
    "host-record=plain.example,192.0.2.10,2001:db8::10",
    "host-record=six.example,2001:db8::25",
    # an alias, of a domain with MX and of one without
    "cname=alias.example,a.example",
    "cname=plainalias.example,plain.example",
    # null MX (RFC 7505)
    "dns-rr=null.example,15,000000",
    # MX to nowhere, beside one that is there and alone
    "mx-host=half.example,gone.example,10",
    "mx-host=half.example,two.example,20",
    "mx-host=gone.test,nowhere.test,10",
    "mx-host=literal.example,192.0.2.99,10",
    "mx-host=unspecified.example,zero.example,10",
    "host-record=zero.example,0.0.0.0",
    # our own name among them
    "mx-host=backup.example,two.example,10",
    "mx-host=backup.example,here.example,20",
    "mx-host=backup.example,last.example,30",
    "mx-host=own.example,here.example,10",
    "host-record=here.example,192.0.2.50",
    # neither MX nor address
    'txt-record=text.example,"only words"',
    "host-record=xn--bcher-kva.example,192.0.2.60",
)


async def in_asyncio(job: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return await trio.to_thread.run_sync(lambda: asyncio.run(job()))


async def looked_up(
    names: Names, domain: str, *, seed: int = 1, ipv6: bool = True, verify: bool = False
) -> list[Route]:
    async def job() -> list[Route]:
        resolver = Resolver(
            [names.server], own=frozenset({"Here.Example."}), dice=random.Random(seed), ipv6=ipv6
        )
        try:
            return await resolver.routes(domain, 2525, verify=verify)
        finally:
            await resolver.close()

    return await in_asyncio(job)


async def test_routes_out_of_a_real_name_server(tmp_path: Path) -> None:
    async with dnsmasq(tmp_path, *RECORDS) as names:
        routes = await looked_up(names, "A.example")
        hosts = [route.name for route in routes]
        assert hosts[-1] == "last.example"
        assert sorted(set(hosts)) == ["last.example", "one.example", "two.example"]
        assert all((route.port, route.verify) == (2525, False) for route in routes)
        of_one = [route.host for route in routes if route.name == "one.example"]
        assert of_one == ["192.0.2.1", "2001:db8::1"]
        firsts = {(await looked_up(names, "a.example", seed=seed))[0].name for seed in range(12)}
        assert firsts == {"one.example", "two.example"}
        assert (await looked_up(names, "plain.example", verify=True))[0].verify


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("plain.example", [("192.0.2.10", "plain.example"), ("2001:db8::10", "plain.example")]),
        ("plainalias.example", [("192.0.2.10", "plainalias.example"),
                                ("2001:db8::10", "plainalias.example")]),
        ("half.example", [("192.0.2.2", "two.example")]),
        ("backup.example", [("192.0.2.2", "two.example")]),
        ("b\u00fccher.example", [("192.0.2.60", "xn--bcher-kva.example")]),
    ],
)  # fmt: skip
async def test_hosts_of(tmp_path: Path, domain: str, expected: list[tuple[str, str]]) -> None:
    async with dnsmasq(tmp_path, *RECORDS) as names:
        assert [(each.host, each.name) for each in await looked_up(names, domain)] == expected


async def test_an_alias_has_the_mx_of_what_it_stands_for(tmp_path: Path) -> None:
    async with dnsmasq(tmp_path, *RECORDS) as names:
        assert {each.name for each in await looked_up(names, "alias.example")} == {
            "one.example",
            "two.example",
            "last.example",
        }


async def test_without_a_way_to_ipv6_its_addresses_are_not_asked_for(tmp_path: Path) -> None:
    async with dnsmasq(tmp_path, *RECORDS) as names:
        routes = await looked_up(names, "plain.example", ipv6=False)
        assert [each.host for each in routes] == ["192.0.2.10"]


@pytest.mark.parametrize(("domain", "permanent"), [("six.example", False), ("text.example", True)])
async def test_without_a_way_to_ipv6_a_domain_that_has_only_that_may_be_written_to_later(
    tmp_path: Path, domain: str, *, permanent: bool
) -> None:
    async with dnsmasq(tmp_path, *RECORDS) as names:
        with pytest.raises(NoRoute) as nothing:
            await looked_up(names, domain, ipv6=False)
        assert nothing.value.permanent is permanent
        assert ("IPv6" in nothing.value.reason) is not permanent


@pytest.mark.parametrize(
    ("domain", "permanent"),
    [
        ("nothing.example", True),
        ("null.example", True),
        ("text.example", True),
        ("[192.0.2.1]", True),
        ("192.0.2.1", True),
        ("a" * 64 + ".example", True),
        ("gone.test", False),
        ("literal.example", False),
        ("unspecified.example", False),
        ("own.example", False),
        ("elsewhere.invalid", False),  # refused: this server knows nothing of it
    ],
)
async def test_no_route(tmp_path: Path, domain: str, *, permanent: bool) -> None:
    async with dnsmasq(tmp_path, *RECORDS) as names:
        with pytest.raises(NoRoute) as nothing:
            await looked_up(names, domain)
        assert nothing.value.permanent is permanent
        assert nothing.value.reason


# --- what no healthy server does
Answer = dns.message.Message


def answered(question: Answer, *records: str, rcode: dns.rcode.Rcode = dns.rcode.NOERROR) -> Answer:
    answer = dns.message.make_response(question)
    answer.set_rcode(rcode)
    for record in records:
        name, ttl_s, kind, data = record.split(" ", 3)
        answer.answer.append(dns.rrset.from_text(name, int(ttl_s), "IN", kind, data))
    return answer


def asks(question: Answer, kind: str) -> bool:
    return question.question[0].rdtype == dns.rdatatype.from_text(kind)


async def test_a_server_that_fails_tells_nothing() -> None:
    def fail(question: Answer) -> Answer:
        return answered(question, rcode=dns.rcode.SERVFAIL)

    async with responder(fail) as names:
        with pytest.raises(NoRoute) as nothing:
            await looked_up(names, "a.example")
        assert not nothing.value.permanent


async def test_a_server_that_is_silent_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mx, "LIFETIME_S", 0.2)
    async with responder(lambda _question: None) as names:
        with pytest.raises(NoRoute) as nothing:
            await looked_up(names, "a.example")
        assert not nothing.value.permanent


async def test_a_lame_server_leaves_the_question_to_the_next(tmp_path: Path) -> None:
    def lame(question: Answer) -> Answer:
        return answered(question, rcode=dns.rcode.REFUSED)

    async with responder(lame) as first, dnsmasq(tmp_path, *RECORDS) as second:

        async def job() -> list[Route]:
            resolver = Resolver([first.server, second.server], ipv6=False)
            return await resolver.routes("plain.example", 25)

        assert [each.host for each in await in_asyncio(job)] == ["192.0.2.10"]
        assert first.questions


async def test_a_truncated_answer_is_asked_for_again_over_tcp() -> None:
    def cut(question: Answer) -> Answer:
        if asks(question, "MX"):
            answer = answered(question, "a.example. 60 MX 10 mx.example.")
        else:
            answer = answered(question, "mx.example. 60 A 192.0.2.1")
        answer.flags |= dns.flags.TC
        return answer

    async with responder(cut) as names:
        routes = await looked_up(names, "a.example", ipv6=False)
        assert [each.host for each in routes] == ["192.0.2.1"]
        assert names.questions == ["a.example. MX"] * 2 + ["mx.example. A"] * 2


async def test_a_domain_whose_addresses_dns_does_not_say_may_have_some() -> None:
    def half(question: Answer) -> Answer:
        failed = dns.rcode.NOERROR if asks(question, "MX") else dns.rcode.SERVFAIL
        return answered(question, rcode=failed)

    async with responder(half) as names:
        with pytest.raises(NoRoute) as nothing:
            await looked_up(names, "a.example")
        assert not nothing.value.permanent


async def test_without_a_way_to_ipv6_a_domain_whose_ipv6_dns_does_not_say_may_have_some() -> None:
    def half(question: Answer) -> Answer:
        failed = dns.rcode.SERVFAIL if asks(question, "AAAA") else dns.rcode.NOERROR
        return answered(question, rcode=failed)

    async with responder(half) as names:
        with pytest.raises(NoRoute) as nothing:
            await looked_up(names, "a.example", ipv6=False)
        assert not nothing.value.permanent


async def test_addresses_that_dns_does_not_say_are_asked_for_again_soon() -> None:
    def half(question: Answer) -> Answer:
        if asks(question, "MX"):
            return answered(question, "a.example. 3600 MX 10 mx.example.")
        if asks(question, "AAAA"):
            return answered(question, rcode=dns.rcode.SERVFAIL)
        return answered(question, "mx.example. 3600 A 192.0.2.1")

    now = [0.0]
    async with responder(half) as names:

        async def job() -> list[int]:
            resolver = Resolver([names.server], ipv6=True, clock=lambda: now[0])
            counts = []
            for now[0] in (0.0, 4.9, 5.1):
                assert [each.host for each in await resolver.routes("a.example", 25)] == [
                    "192.0.2.1"
                ]
                counts.append(names.questions.count("a.example. MX"))
            return counts

        assert await in_asyncio(job) == [1, 1, 2]


@pytest.mark.parametrize(("ttl_s", "kept_s"), [(0, 5), (600, 600), (90_000, 3_600)])
async def test_answers_are_kept_by_their_ttl(ttl_s: int, kept_s: int) -> None:
    def plain(question: Answer) -> Answer:
        if asks(question, "MX"):
            return answered(question, f"a.example. {ttl_s} MX 10 mx.example.")
        return answered(question, f"mx.example. {ttl_s} A 192.0.2.1")

    now = [0.0]
    async with responder(plain) as names:

        async def job() -> list[int]:
            resolver = Resolver([names.server], ipv6=False, clock=lambda: now[0])
            counts = []
            for now[0] in (0.0, kept_s - 0.1, kept_s + 0.1):
                await resolver.routes("a.example", 25)
                counts.append(len(names.questions))
            return counts

        assert await in_asyncio(job) == [2, 2, 4]


async def test_what_is_not_there_is_asked_for_again_soon() -> None:
    def nothing(question: Answer) -> Answer:
        return answered(question, rcode=dns.rcode.NXDOMAIN)

    now = [0.0]
    async with responder(nothing) as names:

        async def job() -> list[int]:
            resolver = Resolver([names.server], ipv6=False, clock=lambda: now[0])
            counts = []
            for now[0] in (0.0, 4.9, 5.1):
                with pytest.raises(NoRoute):
                    await resolver.routes("a.example", 25)
                counts.append(len(names.questions))
            return counts

        assert await in_asyncio(job) == [1, 1, 2]


async def test_many_who_ask_share_one_question_and_who_gives_up_takes_nothing_from_them() -> None:
    def plain(question: Answer) -> Answer:
        if asks(question, "MX"):
            return answered(question, "a.example. 60 MX 10 mx.example.")
        return answered(question, "mx.example. 60 A 192.0.2.1")

    async with responder(plain) as names:

        async def job() -> tuple[int, int]:
            resolver = Resolver([names.server], ipv6=False)
            first, *others = [
                asyncio.create_task(resolver.routes("a.example", 25)) for _ in range(20)
            ]
            await asyncio.sleep(0)
            first.cancel()
            answers = await asyncio.gather(*others)
            assert first.cancelled()
            assert all(routes == answers[0] for routes in answers)
            return len(answers), resolver.statistics()["questions"]

        assert await in_asyncio(job) == (19, 2)
        assert len(names.questions) == 2


async def test_closing_gives_up_what_is_being_asked() -> None:
    asked = threading.Event()

    def listen(_question: Answer) -> None:
        asked.set()

    async with responder(listen) as names:

        async def job() -> int:
            resolver = Resolver([names.server], ipv6=False)
            asking = asyncio.create_task(resolver.routes("a.example", 25))
            await asyncio.to_thread(asked.wait)
            await resolver.close()
            with pytest.raises(asyncio.CancelledError):
                await asking
            return resolver.statistics()["asking"]

        assert await in_asyncio(job) == 0


async def test_an_alias_of_itself_tells_nothing() -> None:
    def circle(question: Answer) -> Answer:
        return answered(
            question, "a.example. 60 CNAME b.example.", "b.example. 60 CNAME a.example."
        )

    async with responder(circle) as names:
        with pytest.raises(NoRoute) as nothing:
            await looked_up(names, "a.example", ipv6=False)
        assert not nothing.value.permanent


async def test_old_answers_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mx, "_MAX_KEPT", 2)

    def plain(question: Answer) -> Answer:
        name = question.question[0].name
        return answered(question, *[] if asks(question, "MX") else [f"{name} 60 A 192.0.2.1"])

    async with responder(plain) as names:

        async def job() -> int:
            resolver = Resolver([names.server], ipv6=False)
            for domain in ("a.example", "b.example", "c.example", "b.example", "c.example"):
                await resolver.routes(domain, 25)
            kept = resolver.statistics()["kept"]
            await resolver.routes("a.example", 25)
            return kept

        assert await in_asyncio(job) == 2
        asked_for = [each.split()[0] for each in names.questions if each.endswith(" MX")]
        assert asked_for == ["a.example.", "b.example.", "c.example.", "a.example."]


async def test_so_many_questions_at_once_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mx, "_MAX_LOOKUPS", 3)
    under_way, most = 0, 0

    class Counting(dns.asyncresolver.Resolver):
        async def resolve(self, *args: Any, **kwargs: Any) -> dns.resolver.Answer:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            try:
                return await super().resolve(*args, **kwargs)
            finally:
                under_way -= 1

    monkeypatch.setattr(dns.asyncresolver, "Resolver", Counting)

    def nothing(question: Answer) -> Answer:
        return answered(question, rcode=dns.rcode.NXDOMAIN)

    async with responder(nothing) as names:

        async def job() -> None:
            resolver = Resolver([names.server], ipv6=False)
            domains = [f"d{number}.example" for number in range(20)]
            answers = await asyncio.gather(
                *(resolver.routes(each, 25) for each in domains), return_exceptions=True
            )
            assert all(isinstance(each, NoRoute) for each in answers)

        await in_asyncio(job)
        assert most == 3
        assert len(names.questions) == 20


async def test_a_machine_without_name_servers_has_no_routes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unconfigured() -> None:
        raise dns.resolver.NoResolverConfiguration

    monkeypatch.setattr(dns.asyncresolver, "Resolver", unconfigured)

    async def job() -> None:
        with pytest.raises(NoRoute, match="no DNS server") as nothing:
            await Resolver(ipv6=False).routes("a.example", 25)
        assert not nothing.value.permanent

    await in_asyncio(job)


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [
        ("192.0.2.1", "192.0.2.1", 53),
        ("192.0.2.1:5353", "192.0.2.1", 5353),
        ("2001:db8::1", "2001:db8::1", 53),
        ("[2001:db8::1]:5353", "2001:db8::1", 5353),
        ("[2001:db8::1]", "2001:db8::1", 53),
    ],
)
def test_name_servers_as_operators_write_them(text: str, address: str, port: int) -> None:
    (server,) = mx.name_servers([text])
    assert (server.address, server.port) == (address, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dns.example",
        "dns.example:53",
        "192.0.2.1:0",
        "192.0.2.1:65536",
        "192.0.2.1:x",
        "192.0.2.1:-1",
        "192.0.2.1 ",
        "192.0.2",
        "[::1",
        "[::1]:x",
        "[::1]53",
    ],
)
def test_what_is_no_name_server_keeps_a_node_from_starting(text: str) -> None:
    with pytest.raises(InvalidError, match=r"smtp\.dns_servers"):
        SmtpGateway(Config(smtp=SmtpConfig(dns_servers=(text,))))
