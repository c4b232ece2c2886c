"""Call, play a recording to whoever answers, hang up."""

from __future__ import annotations

from engine.gateway import Call, Media


async def voicemessage(call: Call, recording: Media) -> None:
    """The callee hears the whole recording and then the line is cleared."""
    await call.answered()
    await call.play(recording)
    await call.hang_up()
