"""A real Postfix with a configuration, queue and mailboxes of its own; the system's stays alone.

Postfix changes users, so it needs root, and folders that these users may pass: its own are made
below the system's temporary folder and go with the block; its log stays in the test's.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import tempfile
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from string import Template

import trio

from tests.support import LOCALHOST, free_port, wait_until
from tests.support.mail.certificates import Certificate, ca
from tests.support.mail.maildir import Arrived, count, read_maildir

NAME = "mx.example.net"
DEADLINE_S = 60.0
MAILBOX_UID = 65534  # nobody's
EVERYTHING = "all"

_MAIN = Template("""\
compatibility_level = 3.6
maillog_file = $log
maillog_file_prefixes = $logs
queue_directory = $folder/queue
data_directory = $folder/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = $name
myorigin = $name
mydestination =
inet_interfaces = loopback-only
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_banner = $name ESMTP
smtpd_peername_lookup = no
smtp_dns_support_level = disabled
smtputf8_enable = yes
smtputf8_autodetect_classes = all
recipient_delimiter = +
local_recipient_maps =
alias_maps =
alias_database =
virtual_mailbox_domains = $accept
virtual_mailbox_base = $folder/mail
virtual_mailbox_maps = regexp:$folder/etc/mailboxes
virtual_minimum_uid = 100
virtual_uid_maps = static:$uid
virtual_gid_maps = static:$uid
virtual_mailbox_limit = 0
message_size_limit = $size
mailbox_size_limit = 0
smtpd_reject_unlisted_recipient = no
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions = check_recipient_access texthash:$folder/etc/refused$policy$login
smtpd_error_sleep_time = 0
smtpd_soft_error_limit = 100000
smtpd_hard_error_limit = 100000
in_flow_delay = 0
soft_bounce = no
bounce_queue_lifetime = 1h
minimal_backoff_time = 300s
transport_maps = texthash:$folder/etc/transport
relay_domains = $relayed
relayhost = $relayhost
""")
_TLS = Template("""\
smtpd_tls_security_level = may
smtpd_tls_cert_file = $certificate
smtpd_tls_key_file = $key
smtpd_tls_loglevel = 1
""")
_AUTH = Template("""\
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = inet:127.0.0.1:$port
smtpd_tls_auth_only = $tls_only
""")
_MASTER = Template("""\
127.0.0.1:$port inet n - n - 100 smtpd
127.0.0.1:$tls_port inet n - n - 100 smtpd -o smtpd_tls_wrappermode=$wrapped
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
pickup unix n - n 60 1 pickup
""")


class Postfix:
    """A running Postfix; ``port`` takes SMTP, ``tls_port`` SMTP within TLS.

    ``trusted`` is the CA bundle of its certificate, which says ``127.0.0.1`` and ``name``.
    """

    def __init__(self, folder: Path, log: Path, port: int) -> None:
        self._folder = folder
        self.log_file = log
        self.name = NAME
        self.port = port or free_port()
        self.tls_port = free_port()
        self.certificate: Certificate | None = None
        self.trusted = Path()

    # --- the processes

    async def start(self) -> None:
        """Start it and wait until it listens."""
        await self._command("start")
        await self._listening()

    async def stop(self) -> None:
        """An orderly end: what is in the queue stays there."""
        await self._command("stop")

    async def reload(self) -> None:
        """Read the maps again."""
        await self._command("reload")

    async def kill(self) -> None:
        """kill -9 of master and everything it started (they share its process group)."""
        group = self._master()
        os.killpg(group, signal.SIGKILL)

        async def gone() -> bool:
            return not _alive(group)

        await wait_until(gone, "Postfix is gone", deadline_s=DEADLINE_S)

    async def restart(self) -> None:
        """kill -9 and start again."""
        await self.kill()
        await self.start()

    @property
    def running(self) -> bool:
        """Whether its master is alive."""
        return (self._folder / "queue/pid/master.pid").exists() and _alive(self._master())

    def _master(self) -> int:
        return int((self._folder / "queue/pid/master.pid").read_text())

    async def _command(self, verb: str) -> None:
        with trio.fail_after(DEADLINE_S):
            done = await trio.run_process(
                ["/usr/sbin/postfix", "-c", str(self._folder / "etc"), verb],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        if done.returncode:
            said = (done.stdout + done.stderr).decode() + self.log()
            raise AssertionError(f"postfix {verb}: {said}")

    async def _listening(self) -> None:
        async def answers() -> bool:
            try:
                stream = await trio.open_tcp_stream(LOCALHOST, self.port)
            except OSError:
                return False
            async with stream:
                return (await stream.receive_some(3)) == b"220"

        await wait_until(answers, f"Postfix answers: {self.log()}", deadline_s=DEADLINE_S)

    # --- what it did

    def log(self) -> str:
        """The end of its log."""
        return self.log_file.read_text()[-4000:] if self.log_file.exists() else ""

    async def logged(self, words: str, *, times: int = 1, deadline_s: float = DEADLINE_S) -> None:
        """Wait until its log holds these words so often."""

        async def there() -> bool:
            return self.log_file.read_text().count(words) >= times

        await wait_until(there, f"{words!r} in: {self.log()}", deadline_s=deadline_s)

    def queued(self) -> int:
        """Mails that are in its queue, on their way or waiting; not those a kill cut short."""
        queue = self._folder / "queue"
        names = ("maildrop", "incoming", "active", "deferred")
        entries = [entry for name in names for entry in (queue / name).rglob("*")]
        return sum(map(_whole_mail, entries))

    async def queue_empty(self, *, deadline_s: float = DEADLINE_S) -> None:
        """Wait until all it took is delivered or given up."""

        async def empty() -> bool:
            return not self.queued()

        await wait_until(empty, f"Postfix's queue is empty: {self.log()}", deadline_s=deadline_s)

    async def messages(self, mailbox: str = EVERYTHING) -> list[Arrived]:
        """What is in a mailbox, in the order of its arrival."""
        return await read_maildir(self.mailbox(mailbox))

    async def wait_messages(self, number: int, mailbox: str = EVERYTHING) -> list[Arrived]:
        """Wait until so many mails are in a mailbox."""

        async def enough() -> bool:
            return self.arrived(mailbox) >= number

        await wait_until(enough, f"{number} mails: {self.log()}", deadline_s=DEADLINE_S)
        return await self.messages(mailbox)

    async def wait_more(self, number: int, mailbox: str = EVERYTHING) -> None:
        """Wait until so many more mails are in a mailbox than now."""
        wanted = self.arrived(mailbox) + number

        async def enough() -> bool:
            return self.arrived(mailbox) >= wanted

        await wait_until(enough, f"{wanted} mails: {self.log()}", deadline_s=DEADLINE_S)

    def arrived(self, mailbox: str = EVERYTHING) -> int:
        """How many mails are in a mailbox."""
        return count(self.mailbox(mailbox))

    def mailbox(self, name: str = EVERYTHING) -> Path:
        """The folder of a mailbox."""
        return self._folder / "mail" / name


def _whole_mail(entry: Path) -> bool:
    """Postfix makes a queue file executable once it holds the whole mail."""
    try:
        mode = entry.stat().st_mode
    except FileNotFoundError:
        return True  # it moves between queues while we look
    return stat.S_ISREG(mode) and bool(mode & stat.S_IXUSR)


def _alive(group: int) -> bool:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended while we looked
        if int(fields[2]) == group and fields[0] != "Z":
            return True
    return False


@asynccontextmanager
async def postfix(
    folder: Path,
    *,
    relay_to: int | None = None,
    starttls: bool = True,
    certificate: Certificate | None = None,
    auth: int | None = None,
    accept: str = "example.net",
    refuse: Collection[str] = (),
    gone: Collection[str] = (),
    bounce_to: tuple[str, int] | None = None,
    boxes: Mapping[str, str] | None = None,
    policy: int | None = None,
    size: int = 50_000_000,
    port: int = 0,
) -> AsyncIterator[Postfix]:
    """A started Postfix that takes mail for the domains ``accept`` into the mailbox ``all``.

    ``refuse``: addresses refused with 550 5.1.1 at RCPT; ``gone``: taken, then bounced with 5.1.1.
    ``bounce_to``: a domain and the port that its mail goes to. ``relay_to``: the port that mail for
    every other domain goes to. ``boxes``: regular expressions of addresses that have a mailbox of
    their own. ``policy``: the port of a policy server asked at every RCPT. ``auth``: the port of
    Dovecot's authentication server; nobody gets in without a login then. ``certificate``: instead
    of a good one.
    """
    if os.geteuid():
        raise RuntimeError("the mail tests start a real Postfix, and Postfix needs root")
    folder.mkdir(parents=True, exist_ok=True)
    own = Path(tempfile.mkdtemp(prefix="outspool-postfix-"))
    own.chmod(0o711)
    mta = Postfix(own, own / "maillog", port)
    # postsuper, which has something to say after a kill -9, is not root when it does.
    mta.log_file.touch()
    mta.log_file.chmod(0o666)
    try:
        if certificate is None:
            authority = ca(folder / "ca")
            mta.trusted = authority.bundle
            certificate = authority.issue(NAME, LOCALHOST, "localhost")
        mta.certificate = certificate
        _folders(own)
        _maps(own, refuse, gone, bounce_to, boxes or {})
        main = _MAIN.substitute(
            log=mta.log_file, logs=own, folder=own, name=NAME, uid=MAILBOX_UID, size=size,
            accept=accept, relayed=bounce_to[0] if bounce_to else "",
            policy=f", check_policy_service inet:{LOCALHOST}:{policy}" if policy else "",
            login=", permit_sasl_authenticated, reject" if auth else "",
            relayhost=f"[{LOCALHOST}]:{relay_to}" if relay_to else "",
        )  # fmt: skip
        if starttls:
            main += _TLS.substitute(certificate=certificate.certificate, key=certificate.key)
        if auth:
            main += _AUTH.substitute(port=auth, tls_only="yes" if starttls else "no")
        (own / "etc/main.cf").write_text(main)
        (own / "etc/master.cf").write_text(
            _MASTER.substitute(
                port=mta.port, tls_port=mta.tls_port, wrapped="yes" if starttls else "no"
            )
        )
        await mta.start()
        yield mta
    finally:
        with trio.CancelScope(shield=True):
            if mta.running:
                await mta.kill()
            if mta.log_file.exists():
                shutil.copy(mta.log_file, folder / "maillog")
            shutil.rmtree(own)


def _folders(own: Path) -> None:
    for name in ("etc", "queue", "data", "mail"):
        (own / name).mkdir(mode=0o755)
        (own / name).chmod(0o755)
    shutil.chown(own / "data", "postfix")
    os.chown(own / "mail", MAILBOX_UID, MAILBOX_UID)


def _maps(
    own: Path,
    refuse: Collection[str],
    gone: Collection[str],
    bounce_to: tuple[str, int] | None,
    boxes: Mapping[str, str],
) -> None:
    etc = own / "etc"
    (etc / "refused").write_text("".join(f"{a} 550 5.1.1 no such user here\n" for a in refuse))
    lines = [f"{bounce_to[0]} smtp:[{LOCALHOST}]:{bounce_to[1]}\n"] if bounce_to else []
    (etc / "transport").write_text("".join(lines))
    rules = [f"/{pattern}/ {name}/\n" for pattern, name in boxes.items()]
    rules += [f"if !/^{_literal(address)}$/\n" for address in gone]
    rules.append(f"/@/ {EVERYTHING}/\n")
    rules += ["endif\n"] * len(gone)
    (etc / "mailboxes").write_text("".join(rules))


def _literal(address: str) -> str:
    return "".join(c if c.isalnum() or c in "@-_" else f"[{c}]" for c in address)
