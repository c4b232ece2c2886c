"""Programs: async functions of a live session, one small function each, in one dict.

A program imports no trio and no gateway; cancelling it hangs up. To add one: write the function in
a module here, add a line to ``PROGRAMS``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from engine.gateway import Call
from engine.model import Media, Service
from engine.programs.voicemessage import voicemessage


class Material(msgspec.Struct, frozen=True, kw_only=True):
    """What a program needs, resolved from the store before a call is placed."""

    recording: Media | None = None


class ProgramType(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of program: its service, the keys its data must hold, its function."""

    name: str
    service: Service
    requires: tuple[str, ...]
    function: Callable[[Call, Material], Awaitable[None]]


async def _voicemessage(call: Call, material: Material) -> None:
    if material.recording is None:
        raise ValueError("a voice message needs its recording")
    await voicemessage(call, material.recording)


PROGRAMS: dict[str, ProgramType] = {
    "voicemessage": ProgramType(
        name="voicemessage",
        service=Service.VOICE,
        requires=("recording_id",),
        function=_voicemessage,
    ),
}
