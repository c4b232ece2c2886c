"""Who binds. Pure."""

from __future__ import annotations

import msgspec


class Login(msgspec.Struct, frozen=True):
    """Who binds."""

    system_id: str
    password: str

    def __repr__(self) -> str:
        """The password is for no log."""
        return f"Login({self.system_id!r})"
