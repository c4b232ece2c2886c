"""Mails for tests: one to send, one that came in."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from engine.gateway import Mailer
from engine.mail import InboundMail, MailAddress, MailForm, MailMessage

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
FORM = MailForm(body=("<p>Hello ", "</p>"), body_alt=("Hello ", ""))
MAIL = MailMessage(
    form=FORM, subject="News for Zoë", to_name="Zoë Quark", body=("Zoë",), body_alt=("Zoë",)
)


async def send(mailer: Mailer) -> None:
    """A program that sends ``MAIL``."""
    await mailer.send_mail(MAIL)


def inbound(**fields: Any) -> InboundMail:
    """A mail to ``us@example.net``, received at noon by the listener."""
    mail = InboundMail(
        provider_id=0,
        source=MailAddress("ada@example.org", "Ada Lovelace"),
        destination="us@example.net",
        subject="Re: News",
        body="<p>Yes</p>",
        body_alt="Yes",
        message_id="<1@example.org>",
        at=NOON,
        key="1@example.org",
        repeat_within_s=432_000.0,
    )
    return msgspec.structs.replace(mail, **fields)
