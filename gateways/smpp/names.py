"""What SMPP 3.4 calls its numbers; smpplib has the tables. Pure."""

from __future__ import annotations

from smpplib import consts
from smpplib.command_codes import commands

_COMMAND_NAMES: dict[int, str] = {number: name for name, number in commands.items()}
_STATUS_NAMES: dict[int, str] = {
    number: name.removeprefix("SMPP_")
    for name, number in vars(consts).items()
    if name.startswith("SMPP_ESME_")
}


def name_of(command: int) -> str:
    """``submit_sm``, or the number of a command that SMPP 3.4 does not have."""
    return _COMMAND_NAMES.get(command) or f"0x{command:08x}"


def status_name(status: int) -> str:
    """``ESME_RTHROTTLED``, or "" for a number that SMPP 3.4 does not name (§5.1.3)."""
    return _STATUS_NAMES.get(status, "")
