"""Programs: async functions of a live session, one small function each, in one dict.

A program imports no trio and no gateway; cancelling it hangs up. To add one: write the function in
a module here, add a line to ``PROGRAMS``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec

from engine.errors import NotReadyError
from engine.gateway import Call, Mailer, Media, Messenger, TextMessage
from engine.gateway import Program as BoundProgram
from engine.mail import MailMessage
from engine.model import Account, Direction, Document, Entity, Recording, Service, Template, Text
from engine.programs.sendemail import sendemail
from engine.programs.sendsms import sendsms
from engine.programs.voicemessage import voicemessage


class Material(msgspec.Struct, frozen=True, kw_only=True):
    """What a program needs, resolved from the store before anything leaves.

    ``message`` is a text as its author wrote it; each contact gets its own words of it. ``mail`` is
    one contact's.
    """

    recording: Media | None = None
    message: TextMessage | None = None
    mail: MailMessage | None = None


Function = Callable[[Any, Material], Awaitable[None]]
"""Given the live session of its service: ``Call`` (voice), ``Messenger`` (SMS), ``Mailer``."""


class ProgramType(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of program: its service, the keys its data must and may hold, its function.

    ``function`` is None where no gateway of this node carries it: such a program can be kept but
    not sent. ``direction`` INBOUND: it waits for what comes in, and is never sent at all.
    """

    name: str
    service: Service
    requires: tuple[str, ...]
    takes: tuple[str, ...] = ("account_id",)
    direction: Direction = Direction.OUTBOUND
    function: Function | None = None

    @property
    def parameters(self) -> tuple[str, ...]:
        """Every key its data may hold."""
        return tuple(dict.fromkeys((*self.requires, *self.takes)))


async def _voicemessage(call: Call, material: Material) -> None:
    if material.recording is None:
        raise ValueError("a voice message needs its recording")
    await voicemessage(call, material.recording)


async def _sendsms(messenger: Messenger, material: Material) -> None:
    if material.message is None:
        raise ValueError("a short message needs its text")
    await sendsms(messenger, material.message)


async def _sendemail(mailer: Mailer, material: Material) -> None:
    if material.mail is None:
        raise ValueError("an e-mail needs its template")
    await sendemail(mailer, material.mail)


_IN = Direction.INBOUND

# Services and parameters: specs/ictcore.md §4.1, §5.2.
PROGRAMS: dict[str, ProgramType] = {
    kind.name: kind
    for kind in (
        ProgramType(name="voicemessage", service=Service.VOICE, requires=("recording_id",),
                    function=_voicemessage),
        ProgramType(name="voicetts", service=Service.VOICE, requires=("text",),
                    takes=("delay", "account_id")),
        ProgramType(name="sendfax", service=Service.FAX, requires=("document_id",)),
        ProgramType(name="sendsms", service=Service.SMS, requires=("text_id",), function=_sendsms),
        ProgramType(name="sendemail", service=Service.EMAIL, requires=("template_id",),
                    function=_sendemail),
        ProgramType(name="receivefax", service=Service.FAX, requires=("account_id",),
                    direction=_IN),
        ProgramType(name="faxtoemail", service=Service.FAX, requires=("account_id",),
                    direction=_IN),
        ProgramType(name="receivesms", service=Service.SMS, requires=("account_id",),
                    direction=_IN),
        ProgramType(name="receiveemail", service=Service.EMAIL, requires=("account_id",),
                    direction=_IN),
        ProgramType(name="emailtofax", service=Service.EMAIL, requires=("account_id",),
                    direction=_IN),
    )
}  # fmt: skip

MESSAGES: dict[str, type[Entity]] = {
    "document_id": Document,
    "recording_id": Recording,
    "template_id": Template,
    "text_id": Text,
}
"""Parameters that name a message; a type requires one of them at most."""

REFERENCES: dict[str, type[Entity]] = {**MESSAGES, "account_id": Account}
"""Parameters that name a row."""


def function_of(name: str) -> Function:
    """What a program of this type does; ``NotReadyError`` where it cannot be sent."""
    kind = PROGRAMS.get(name)
    if kind is not None and kind.direction is Direction.INBOUND:
        raise NotReadyError(f"Programs of type {name} serve what comes in, they cannot be sent")
    if kind is None or kind.function is None:
        raise NotReadyError(f"Programs of type {name} cannot be sent by this node")
    return kind.function


def bound(function: Function, material: Material) -> BoundProgram:
    """The function of a live session, with what it needs."""
    return partial(_play_through, function, material)


async def _play_through(function: Function, material: Material, session: Any) -> None:
    await function(session, material)
