"""Beginning and ending spools, many at once: one read and one write per table and chunk.

Statuses move only as ``engine.states`` says; what it forbids is answered with None (begin) or left
as it is (end).
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from engine.model import Direction, SpoolStatus, TransmissionStatus
from engine.results import Result
from engine.states import Event, advance, may
from engine.store import hotsql
from engine.store.base import Begun, Intent, Outcome
from engine.store.codec import maybe_micros, micros, new_uids
from engine.store.transaction import Transaction

_OUTBOUND = Direction.OUTBOUND.value
_PENDING = TransmissionStatus.PENDING
_PROCESSING = TransmissionStatus.PROCESSING
_INITIATED = SpoolStatus.INITIATED
_CONNECTED = advance(_INITIATED, Event.CONNECT)
_MOVES = {
    TransmissionStatus.COMPLETED: Event.SUCCEED,
    TransmissionStatus.FAILED: Event.FAIL,
    TransmissionStatus.INVALID: Event.REFUSE,
    TransmissionStatus.PENDING: Event.RETRY,
}

Pairs = set[tuple[int | None, int]]
Data = Counter[Sequence[str]]
_NOTHING = Data()


class _Held(msgspec.Struct):
    """A transmission as the batch has it so far."""

    id: int
    status: TransmissionStatus
    try_done: int
    campaign_id: int | None
    owner_id: int | None
    open: bool


class _Ids:
    """Ids for new rows. The writer is alone, so the next id is the highest ever given plus one."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        last: dict[str, int] = dict(connection.execute(hotsql.LAST_IDS).fetchall())
        self._transmission = last.get("transmission", 0)
        self._spool = last.get("spool", 0)

    def transmission(self) -> int:
        self._transmission += 1
        return self._transmission

    def spool(self) -> int:
        self._spool += 1
        return self._spool


class _Beginning:
    """What a batch of intents adds up to before anything is written."""

    def __init__(self, tx: Transaction, intents: Sequence[Intent]) -> None:
        self.tx = tx
        self.taken = _taken(tx.connection, intents)
        self.held = _held(tx.connection, intents)
        self.ids = _Ids(tx.connection)
        self.uids = iter(new_uids(len(intents)))
        self.created: list[tuple[Any, ...]] = []
        self.claimed: dict[int, tuple[Any, ...]] = {}
        self.refused: dict[int, tuple[Any, ...]] = {}
        self.spools: list[tuple[Any, ...]] = []

    def begin(self, intent: Intent) -> Begun | None:
        at = micros(intent.at)
        if intent.transmission_id:
            held = self._claim(intent, at)
        else:
            held = self._create(intent, at, _PROCESSING, tries=int(intent.counts_try))
        return None if held is None else self._spool(intent, held, at)

    def screen(self, intent: Intent, result: Result) -> None:
        if intent.transmission_id:
            self._refuse(intent, result)
        else:
            status = advance(_PENDING, Event.REFUSE)
            self._create(intent, micros(intent.at), status, tries=0, response=result.cause)

    def write(self) -> None:
        connection = self.tx.connection
        hotsql.NEW_TRANSMISSIONS.run(connection, self.created)
        hotsql.CLAIM_TRANSMISSIONS.run(connection, list(self.claimed.values()))
        hotsql.REFUSE_TRANSMISSIONS.run(connection, list(self.refused.values()))
        hotsql.NEW_SPOOLS.run(connection, self.spools)

    def _create(
        self,
        intent: Intent,
        at: int,
        status: TransmissionStatus,
        *,
        tries: int,
        response: str = "",
    ) -> _Held | None:
        campaign_id = intent.campaign_id
        if campaign_id is not None:
            if (campaign_id, intent.contact_id) in self.taken:
                return None
            self.taken.add((campaign_id, intent.contact_id))
        held = _Held(self.ids.transmission(), status, tries, campaign_id, intent.owner_id, False)
        screened = status is not _PROCESSING
        self.created.append(
            (held.id, next(self.uids), intent.owner_id, at, at, intent.title, int(intent.service),
             intent.program_id, intent.account_id, intent.contact_id, campaign_id, intent.origin,
             _OUTBOUND, status.value, response, intent.try_allowed, tries, None,
             None if screened else at, int(screened))
        )  # fmt: skip
        self.tx.tally.transmission(
            1, campaign_id, intent.owner_id, direction=_OUTBOUND, status=status.value,
            try_done=tries, screened=screened, response=response,
        )  # fmt: skip
        return held

    def _claim(self, intent: Intent, at: int) -> _Held | None:
        held = self.held.get(intent.transmission_id)
        # One open spool a transmission: a second claim while one is up would dial twice.
        if held is None or held.open or not may(held.status, Event.CLAIM):
            return None
        self._move(held, Event.CLAIM)
        if intent.counts_try:
            held.try_done += 1
            if held.try_done > 1:
                self.tx.tally.retried(held.campaign_id)
        self.claimed[held.id] = (held.id, held.status.value, held.try_done, at)
        return held

    def _refuse(self, intent: Intent, result: Result) -> None:
        held = self.held.get(intent.transmission_id)
        if held is None or held.open or not may(held.status, Event.REFUSE):
            return
        self._move(held, Event.REFUSE)
        self.tx.tally.screened(held.campaign_id, result.cause)
        self.refused[held.id] = (held.id, held.status.value, result.cause, micros(intent.at))

    def _move(self, held: _Held, event: Event) -> None:
        tally = self.tx.tally
        tally.moved(-1, held.campaign_id, held.owner_id, held.status.value)
        held.status = advance(held.status, event)
        tally.moved(1, held.campaign_id, held.owner_id, held.status.value)

    def _spool(self, intent: Intent, held: _Held, at: int) -> Begun:
        held.open = True
        spool_id = self.ids.spool()
        self.spools.append(
            (spool_id, intent.uid.bytes, intent.owner_id, at, at, held.id, held.campaign_id,
             int(intent.service), intent.account_id, intent.provider_id, intent.node_id,
             intent.destination, at)
        )  # fmt: skip
        self.tx.tally.spool(
            1, held.campaign_id, intent.owner_id,
            status=_INITIATED.value, disposition="", response="",
        )  # fmt: skip
        return Begun(spool_id, held.id, held.try_done)


def begin(tx: Transaction, intents: Sequence[Intent]) -> list[Begun | None]:
    """Commit-to-be of intents; ``sqlite3.IntegrityError`` where a row they name is gone."""
    batch = _Beginning(tx, intents)
    answers = [batch.begin(intent) for intent in intents]
    batch.write()
    _move_cursors(tx.connection, intents)
    return answers


def begin_carefully(tx: Transaction, intents: Sequence[Intent]) -> list[Begun | None]:
    """The same one by one, where rows they name may have been deleted meanwhile.

    Without its contact, program or campaign an intent has nothing to do: None. A provider or
    account deleted a moment ago is detached, as if it had been deleted a moment later.
    """
    answers: list[Begun | None] = []
    for intent in intents:
        try:
            with tx.savepoint():
                answers += begin(tx, [hotsql.detached(tx.connection, intent)])
        except sqlite3.IntegrityError:
            answers.append(None)
            _move_cursors(tx.connection, [intent])
    return answers


def screen_out(tx: Transaction, intents: Sequence[Intent], results: Sequence[Result]) -> None:
    """Record contacts we chose not to try."""
    batch = _Beginning(tx, intents)
    for intent, result in zip(intents, results, strict=True):
        batch.screen(intent, result)
    batch.write()
    _move_cursors(tx.connection, intents)


def screen_out_carefully(
    tx: Transaction, intents: Sequence[Intent], results: Sequence[Result]
) -> None:
    """The same one by one; see ``begin_carefully``."""
    for intent, result in zip(intents, results, strict=True):
        try:
            with tx.savepoint():
                screen_out(tx, [hotsql.detached(tx.connection, intent)], [result])
        except sqlite3.IntegrityError:
            _move_cursors(tx.connection, [intent])


def connect(tx: Transaction, notes: Sequence[tuple[int, datetime]]) -> None:
    """Mark spools connected that are only initiated: a note that comes late changes nothing."""
    rows = [(spool_id, _CONNECTED.value, micros(at)) for spool_id, at in notes]
    hotsql.CONNECT_SPOOLS.run(tx.connection, rows)


def finish(tx: Transaction, outcomes: Sequence[Outcome]) -> None:
    """Close spools, move their transmissions, store result rows, count. First result wins."""
    known = hotsql.OPEN_SPOOLS.json(tx.connection, [(outcome.spool_id,) for outcome in outcomes])
    states = {row[0]: row[1:] for row in known}
    spools: list[tuple[Any, ...]] = []
    moves: dict[int, tuple[Any, ...]] = {}
    results: list[tuple[Any, ...]] = []
    uncounted: list[int] = []
    collected = _collected(tx.connection, [key for key, state in states.items() if state[-1]])
    for outcome in outcomes:
        # Taken out: a second outcome of the same spool in this batch finds nothing.
        state = states.pop(outcome.spool_id, None)
        if state is None:
            continue
        spools.append(_closed(tx, outcome, state))
        move = _moved(tx, outcome, state)
        if move is not None:
            moves[move[0]] = move
            if _goes_on(outcome.result) and move[1] == _PENDING.value:
                uncounted.append(move[0])
        results += _results(outcome, state, collected.get(outcome.spool_id, _NOTHING))
    hotsql.CLOSE_SPOOLS.run(tx.connection, spools)
    hotsql.MOVE_TRANSMISSIONS.run(tx.connection, list(moves.values()))
    _uncount(tx, uncounted)
    # One read of the random source: each gives up the interpreter lock.
    uids = new_uids(len(results))
    rows = [(uid, *row) for uid, row in zip(uids, results, strict=True)]
    hotsql.NEW_RESULTS.run(tx.connection, rows)


def _goes_on(result: Result) -> bool:
    """Whether the same try goes on, now or later."""
    return result.again or bool(result.later_s)


def _uncount(tx: Transaction, transmission_ids: Sequence[int]) -> None:
    """Take back the try that goes on: the spool it goes on with counts it again."""
    rows = [(key,) for key in transmission_ids]
    for _, _, try_done, campaign_id, _, _ in hotsql.HELD.json(tx.connection, rows):
        if try_done > 1:
            tx.tally.retried(campaign_id, -1)
    hotsql.UNCOUNT_TRIES.run(tx.connection, rows)


def finish_alone(tx: Transaction, outcome: Outcome) -> None:
    """Move a transmission in process that has no open spool; any other keeps its life."""
    for key, status, _, campaign_id, owner_id, is_open in hotsql.HELD.json(
        tx.connection, [(outcome.transmission_id,)]
    ):
        if is_open or status != _PROCESSING.value:
            continue
        move = _moved(tx, outcome, (None, None, None, key, status, campaign_id, owner_id))
        if move is not None:
            hotsql.MOVE_TRANSMISSIONS.run(tx.connection, [move])


def _closed(tx: Transaction, outcome: Outcome, state: Sequence[Any]) -> tuple[Any, ...]:
    status, owner_id, campaign_id = state[:3]
    result = outcome.result
    event = Event.SUCCEED if result.succeeded else Event.FAIL
    final = advance(SpoolStatus(status), event).value
    disposition = result.disposition.value
    tx.tally.ended(
        1, campaign_id, owner_id, status=final, disposition=disposition, response=result.cause
    )
    at = micros(outcome.at)
    return (
        outcome.spool_id, final, result.cause, disposition, result.code,
        maybe_micros(result.started_at), maybe_micros(result.connected_at),
        at if result.ended_at is None else micros(result.ended_at), result.talk_s, at,
    )  # fmt: skip


def _moved(tx: Transaction, outcome: Outcome, state: Sequence[Any]) -> tuple[Any, ...] | None:
    transmission_id, status, campaign_id, owner_id = state[3:7]
    before, event = TransmissionStatus(status), _MOVES[outcome.transmission_status]
    # A row whose life was changed by other hands keeps it; the spool has its result all the same.
    if not may(before, event):
        return None
    after = advance(before, event)
    tx.tally.moved(-1, campaign_id, owner_id, before.value)
    tx.tally.moved(1, campaign_id, owner_id, after.value)
    due_at = maybe_micros(outcome.due_at) if after is _PENDING else None
    cause = outcome.result.cause
    return (transmission_id, after.value, cause, due_at, micros(outcome.at))


def _results(outcome: Outcome, state: Sequence[Any], collected: Data) -> list[tuple[Any, ...]]:
    at, owner_id = micros(outcome.at), state[1]
    new = []
    for row in outcome.result.rows:
        datum = (row.type, row.name, row.data)
        if collected[datum]:
            collected[datum] -= 1
        else:
            new.append((owner_id, at, at, outcome.spool_id, *datum))
    return new


def _collected(connection: sqlite3.Connection, spool_ids: Sequence[int]) -> dict[int, Data]:
    """What spools that waited have already: a report may say it all again."""
    found = defaultdict[int, Data](Data)
    if spool_ids:
        for spool_id, *datum in hotsql.COLLECTED.json(connection, [(key,) for key in spool_ids]):
            found[spool_id][tuple(datum)] += 1
    return found


def _taken(connection: sqlite3.Connection, intents: Sequence[Intent]) -> Pairs:
    """Which (campaign, contact) of the intents have a transmission already."""
    asked = [
        (intent.campaign_id, intent.contact_id)
        for intent in intents
        if not intent.transmission_id and intent.campaign_id is not None
    ]
    found = hotsql.TAKEN.json(connection, asked)
    return {(campaign_id, contact_id) for campaign_id, contact_id in found}


def _held(connection: sqlite3.Connection, intents: Sequence[Intent]) -> dict[int, _Held]:
    asked = {intent.transmission_id for intent in intents if intent.transmission_id}
    rows = hotsql.HELD.json(connection, [(key,) for key in asked])
    return {
        row[0]: _Held(row[0], TransmissionStatus(row[1]), row[2], row[3], row[4], bool(row[5]))
        for row in rows
    }


def _move_cursors(connection: sqlite3.Connection, intents: Iterable[Intent]) -> None:
    """Move each campaign's cursor to the furthest link among the intents."""
    furthest: defaultdict[int, int] = defaultdict(int)
    for intent in intents:
        if intent.campaign_id is not None:
            key = intent.campaign_id
            furthest[key] = max(furthest[key], intent.link_id)
    hotsql.MOVE_CURSORS.run(connection, list(furthest.items()))
