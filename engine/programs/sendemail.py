"""Send a mail to whoever has the address."""

from __future__ import annotations

from engine.gateway import Mailer
from engine.mail import MailMessage


async def sendemail(mailer: Mailer, message: MailMessage) -> None:
    """The network has the mail once this returns; it may bounce later."""
    await mailer.send_mail(message)
