"""Send a text to whoever has the number."""

from __future__ import annotations

from engine.gateway import Messenger, TextMessage


async def sendsms(messenger: Messenger, message: TextMessage) -> None:
    """The network has the text once this returns; its receipt comes later."""
    await messenger.send_text(message)
