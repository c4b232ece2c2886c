"""A real Dovecot with a configuration and mailboxes of its own: IMAP, and logins for Postfix."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from string import Template

import trio

from tests.support import LOCALHOST, free_port, wait_until
from tests.support.mail.certificates import Certificate, ca

DEADLINE_S = 30.0
MAILBOX_UID = 65534  # nobody's, as Postfix's mailboxes here
NAME = "imap.example.net"

_CONFIG = Template("""\
base_dir = $own/run
state_dir = $own/state
instance_name = $instance
log_path = $log
protocols = imap
listen = 127.0.0.1
ssl = yes
ssl_cert = <$certificate
ssl_key = <$key
disable_plaintext_auth = no
auth_mechanisms = plain login cram-md5
auth_failure_delay = 0
first_valid_uid = 1
mail_location = maildir:$mail/%u
passdb {
  driver = passwd-file
  args = scheme=PLAIN username_format=%u $own/users
}
userdb {
  driver = static
  args = uid=$uid gid=$uid home=$own/home
}
service imap-login {
  inet_listener imap {
    address = 127.0.0.1
    port = $port
  }
  inet_listener imaps {
    address = 127.0.0.1
    port = $tls_port
    ssl = yes
  }
}
service auth {
  inet_listener {
    address = 127.0.0.1
    port = $auth_port
  }
}
""")


class Dovecot:
    """A running Dovecot; ``auth_port`` is for ``postfix(auth=...)``."""

    def __init__(self, own: Path, mail: Path) -> None:
        self._own = own
        self.mail = mail
        self.port = free_port()
        self.tls_port = free_port()
        self.auth_port = free_port()
        self.trusted = Path()
        self.log_file = own / "log"
        self._process: trio.Process | None = None

    async def start(self) -> None:
        """Start it and wait until it listens."""
        self._process = await trio.lowlevel.open_process(
            ["/usr/sbin/dovecot", "-F", "-c", str(self._own / "dovecot.conf")],
            stdin=subprocess.DEVNULL,
        )
        await wait_until(self._answers, "Dovecot answers", deadline_s=DEADLINE_S)

    async def stop(self) -> None:
        """End it; it ends its own processes."""
        assert self._process is not None
        with trio.fail_after(DEADLINE_S):
            self._process.terminate()
            await self._process.wait()

    @property
    def running(self) -> bool:
        """Whether it is there."""
        return self._process is not None and self._process.returncode is None

    async def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.returncode is None, self.log()
        try:
            stream = await trio.open_tcp_stream(LOCALHOST, self.port)
        except OSError:
            return False
        async with stream:
            return (await stream.receive_some(4)) == b"* OK"

    def log(self) -> str:
        """The end of its log."""
        return self.log_file.read_text()[-4000:] if self.log_file.exists() else ""

    def set_password(self, user: str, password: str) -> None:
        """From the next login on."""
        users = dict(line.split(":", 1) for line in (self._own / "users").read_text().splitlines())
        users[user] = "{PLAIN}" + password
        self._write(users)

    async def set_uidvalidity(self, user: str, folder: str, uidvalidity: int) -> None:
        """Of a folder, which is made where it is not there."""
        config = ["doveadm", "-c", str(self._own / "dovecot.conf"), "mailbox"]
        create, update = [*config, "create"], [*config, "update"]
        if folder != "INBOX":
            await trio.run_process([*create, "-u", user, folder])
        await trio.run_process([*update, "-u", user, "--uid-validity", str(uidvalidity), folder])

    def _write(self, users: Mapping[str, str]) -> None:
        (self._own / "users").write_text("".join(f"{u}:{p}\n" for u, p in users.items()))


@asynccontextmanager
async def dovecot(
    folder: Path,
    users: Mapping[str, str],
    *,
    mail: Path | None = None,
    certificate: Certificate | None = None,
) -> AsyncIterator[Dovecot]:
    """A started Dovecot with these users and passwords.

    ``mail``: the folder with a Maildir for each user (``Postfix.mailbox(user).parent``).
    """
    if os.geteuid():
        raise RuntimeError("the mail tests start a real Dovecot, and Dovecot needs root")
    folder.mkdir(parents=True, exist_ok=True)
    own = Path(tempfile.mkdtemp(prefix="outspool-dovecot-"))
    own.chmod(0o755)
    for name in ("run", "state", "home", "mail"):
        (own / name).mkdir(mode=0o755)
    for name in ("home", "mail"):
        os.chown(own / name, MAILBOX_UID, MAILBOX_UID)
    server = Dovecot(own, mail or own / "mail")
    try:
        if certificate is None:
            authority = ca(folder / "ca")
            server.trusted = authority.bundle
            certificate = authority.issue(NAME, LOCALHOST, "localhost")
        server._write({user: "{PLAIN}" + password for user, password in users.items()})
        config = _CONFIG.substitute(
            own=own, instance=own.name, log=server.log_file, mail=server.mail, uid=MAILBOX_UID,
            certificate=certificate.certificate, key=certificate.key,
            port=server.port, tls_port=server.tls_port, auth_port=server.auth_port,
        )  # fmt: skip
        (own / "dovecot.conf").write_text(config)
        await server.start()
        yield server
    finally:
        with trio.CancelScope(shield=True):
            if server.running:
                await server.stop()
            if server.log_file.exists():
                shutil.copy(server.log_file, folder / "dovecot.log")
            shutil.rmtree(own)
