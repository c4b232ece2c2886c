"""pjsua accounts of a worker: one without credentials, a few with one provider's each.

pjsua has room for 8 and aborts at the 9th. Accounts and their calls are therefore made once and
changed for another provider while idle, never destroyed.
"""

from __future__ import annotations

from typing import Any

import pjsua2 as pj

from native.pjsua.call import Desk, WorkerCall
from native.pjsua.wire import SLOTS, Credentials, RegistrationSpec, Verb

MAX_ACCOUNTS = 7


def account_config(
    host: str, credentials: Credentials | None, contact: str = ""
) -> pj.AccountConfig:
    """A local account: loop media transport, no registration, nothing rewritten behind our back.

    ``sipConfig.transportId`` stays unset: with it a far end can abort the process by a Contact of
    another transport. ``contact`` spares pjsua from opening a socket for every call just to find
    out which address that would have.
    """
    config = pj.AccountConfig()
    config.idUri = f"sip:outspool@{host}"
    config.sipConfig.contactForced = contact
    config.mediaConfig.useLoopMedTp = True
    config.mediaConfig.lockCodecEnabled = False
    config.natConfig.contactRewriteUse = 0
    config.natConfig.viaRewriteUse = 0
    config.natConfig.sdpNatRewriteUse = 0
    if credentials is not None:
        config.sipConfig.authCreds.append(
            pj.AuthCredInfo("digest", "*", credentials.username, 0, credentials.password)
        )
    return config


class _Seat:
    """An account with its pool of call objects."""

    def __init__(
        self, host: str, credentials: Credentials | None, contact: str, desk: Desk
    ) -> None:
        self.credentials = credentials
        self.account = pj.Account()
        self.account.create(account_config(host, credentials, contact))
        self.idle = [WorkerCall(self.account, desk) for _ in range(SLOTS)]
        self.used = 0

    @property
    def busy(self) -> bool:
        return len(self.idle) < SLOTS


class Accounts:
    """Gives out call objects of the right account."""

    def __init__(self, host: str, udp_contact: str, desk: Desk) -> None:
        self._host = host
        self._udp_contact = udp_contact
        self._desk = desk
        self._clock = 0
        self._seats: dict[tuple[str, bool], _Seat] = {}
        self._lent: dict[int, _Seat] = {}

    def take(self, credentials: Credentials | None, *, udp: bool) -> WorkerCall | None:
        """A call object whose account has these credentials; None where all are in use."""
        seat = self._seat(credentials, udp=udp)
        if seat is None or not seat.idle:
            return None
        self._clock += 1
        seat.used = self._clock
        call = seat.idle.pop()
        self._lent[id(call)] = seat
        return call

    def give_back(self, call: WorkerCall) -> None:
        """The slot of ``call`` is free again."""
        self._lent.pop(id(call)).idle.append(call)

    def _seat(self, credentials: Credentials | None, *, udp: bool) -> _Seat | None:
        key = ("" if credentials is None else credentials.key, udp)
        contact = self._udp_contact if udp else ""
        seat = self._seats.get(key)
        if seat is None and len(self._seats) < MAX_ACCOUNTS:
            seat = self._seats[key] = _Seat(self._host, credentials, contact, self._desk)
        elif seat is None:
            seat = self._reuse(key, contact)
        if seat is not None and seat.credentials != credentials:
            seat.account.modify(account_config(self._host, credentials, contact))
            seat.credentials = credentials
        return seat

    def _reuse(self, key: tuple[str, bool], contact: str) -> _Seat | None:
        idle = [(seat.used, name) for name, seat in self._seats.items() if not seat.busy]
        if not idle:
            return None
        seat = self._seats.pop(min(idle)[1])
        self._seats[key] = seat
        seat.account.modify(account_config(self._host, None, contact))
        seat.credentials = None
        return seat


class Registration(pj.Account):  # type: ignore[misc]
    """A registration kept alive by pjsua; every change is said to the node."""

    def __init__(self, spec: RegistrationSpec, host: str, desk: Desk) -> None:
        super().__init__()
        self._desk = desk
        config = account_config(host, spec.credentials)
        config.idUri = spec.aor
        config.regConfig.registrarUri = spec.registrar_uri
        config.regConfig.registerOnAdd = True
        config.regConfig.timeoutSec = spec.expires_s
        config.regConfig.retryIntervalSec = 10
        config.regConfig.firstRetryIntervalSec = 2
        self.create(config)

    def onRegState(self, prm: Any) -> None:  # noqa: N802
        """A REGISTER got its answer, or none."""
        self._desk.say(Verb.REGISTRATION, prm.code, prm.reason[:120], prm.expiration)
