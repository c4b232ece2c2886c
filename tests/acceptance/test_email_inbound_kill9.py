"""kill -9 of the node while mail comes in: who got no 250 sends again, and it is there once.

The sender is as stubborn as any relay, only quicker.
"""

from __future__ import annotations

import os
import random
import smtplib
import threading
from collections import Counter
from email.message import EmailMessage
from pathlib import Path

import pytest
import trio

from tests.acceptance import mail_campaign as mail
from tests.acceptance.session import create
from tests.support import LOCALHOST, free_port, wait_until
from tests.support.node_process import node_process

KILLS = int(os.environ.get("OUTSPOOL_TEST_MAIL_KILLS", "5"))
MAILS = 60 * KILLS
DEADLINE_S = 300.0
REPLY_S = 30.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Sender:
    """Sends mails one after the other, each until it is taken; ``again``: how often one was not."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._over = threading.Event()
        self.taken = 0
        self.again = 0

    def run(self) -> None:
        """In a thread, until all are taken or ``stop``."""
        while self.taken < MAILS and not self._over.is_set():
            try:
                with smtplib.SMTP(LOCALHOST, self._port, timeout=REPLY_S) as client:
                    while self.taken < MAILS and not self._over.is_set():
                        client.send_message(_mail(self.taken))
                        self.taken += 1
            except (OSError, smtplib.SMTPException):
                self.again += 1
                self._over.wait(0.05)  # the pace of its tries

    def stop(self) -> None:
        """Whatever is not taken yet."""
        self._over.set()


def _mail(number: int) -> EmailMessage:
    message = EmailMessage()
    message["From"] = "zoe@example.com"
    message["To"] = mail.SENDER
    message["Subject"] = f"number {number}"
    message["Message-ID"] = f"<{number}@example.com>"
    message.set_content("Hi\n")
    message.add_attachment(b"x" * 2000, maintype="image", subtype="png", filename="a.png")
    message.set_boundary("same")  # a relay sends the same octets again
    return message


async def test_kill_9_while_mail_comes_in_loses_and_doubles_none(tmp_path: Path) -> None:
    port, dice = free_port(), random.Random(KILLS)
    sender = Sender(port)
    config = mail.config(tmp_path, None, smtp={"listen_port": port})
    async with node_process(config) as node:
        async with node.client() as client:
            account_id = await mail.account(client)
            program = {"name": "in", "account_id": account_id}
            await create(client, "/programs/receiveemail", "program_id", program)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, sender.run)
            try:
                with trio.fail_after(DEADLINE_S):
                    for _ in range(KILLS):
                        await _taken(sender, sender.taken + 5)
                        await trio.sleep(dice.uniform(0.0, 0.1))  # the instant is the input
                        await node.kill()
                        await node.start()
                    await _taken(sender, MAILS)
            finally:
                sender.stop()
        async with node.client() as client:
            kept = await mail.every(client, "/messages/templates")
            emails = await mail.every(client, "/emails", direction="inbound")
        files = list((tmp_path / "data" / "media").glob("*.*"))
        assert await node.terminate() == 0

    assert sender.again > 0
    assert Counter(one["subject"] for one in kept) == {f"number {n}": 1 for n in range(MAILS)}
    assert len(emails) == MAILS
    # A kill between the files and their row may leave a file that nobody knows, no more.
    assert MAILS <= len(files) <= MAILS + KILLS


async def _taken(sender: Sender, number: int) -> None:
    async def enough() -> bool:
        return sender.taken >= number

    await wait_until(enough, f"{number} mails are taken", deadline_s=DEADLINE_S)
