"""One outbound call as a state machine: events in, actions out; no socket, no clock, no Trio.

The enumerations are integers because those hash in C: the table is read a dozen times a call.

Everything that changes the state of a call is in ``TABLE``. The far end's words and ours may cross
on the wire, so every event has a meaning in every state; after the end nothing happens any more.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum, auto


class State(IntEnum):
    """How far the call is."""

    IDLE = auto()  # nothing left this machine yet
    CALLING = auto()  # INVITE sent
    RINGING = auto()  # 18x came
    UP = auto()  # 200 came and was acknowledged
    LEAVING = auto()  # we sent CANCEL or BYE
    OVER = auto()


class Event(IntEnum):
    """What happens to a call."""

    PLACE = auto()
    RING = auto()
    ANSWER = auto()
    MEDIA = auto()  # the far end's RTP address, codec or direction
    HANG_UP = auto()  # ours, whatever the reason
    END = auto()  # the worker says it is over
    LOST = auto()  # the worker died, the gateway closes


class Action(IntEnum):
    """What the owner of the session has to do now."""

    SEND_CALL = auto()
    SEND_HANG_UP = auto()
    TELL_RINGING = auto()
    TELL_CONNECTED = auto()
    CONNECT_MEDIA = auto()
    FINISH = auto()


class Why(StrEnum):
    """Why we hung up; the first reason stands."""

    NONE = "none"
    PROGRAM = "program"  # the program was through
    RING_TIMEOUT = "ring_timeout"
    CALL_LIMIT = "call_limit"
    CANCELLED = "cancelled"
    DEAD_MEDIA = "media_timeout"  # no RTP for as long as the order allows
    MEDIA_LOST = "media_lost"  # our RTP engine died
    MEDIA_REFUSED = "media_refused"  # a codec nobody offered
    PLAYBACK_FAILED = "playback_failed"  # the recording cannot be read
    PROGRAM_FAILED = "program_failed"
    WORKER_DIED = "worker_died"
    SHUTDOWN = "shutdown"


Actions = tuple[Action, ...]
_NOTHING: Actions = ()
_FINISH: Actions = (Action.FINISH,)
_CONNECT: Actions = (Action.CONNECT_MEDIA,)

TABLE: dict[tuple[State, Event], tuple[State, Actions]] = {
    (State.IDLE, Event.PLACE): (State.CALLING, (Action.SEND_CALL,)),
    (State.IDLE, Event.HANG_UP): (State.OVER, _FINISH),
    (State.CALLING, Event.RING): (State.RINGING, (Action.TELL_RINGING,)),
    (State.CALLING, Event.ANSWER): (State.UP, (Action.TELL_CONNECTED,)),
    (State.CALLING, Event.MEDIA): (State.CALLING, _CONNECT),
    (State.CALLING, Event.HANG_UP): (State.LEAVING, (Action.SEND_HANG_UP,)),
    # A second 18x is told once: 180 after 183 is still ringing.
    (State.RINGING, Event.RING): (State.RINGING, _NOTHING),
    (State.RINGING, Event.ANSWER): (State.UP, (Action.TELL_CONNECTED,)),
    (State.RINGING, Event.MEDIA): (State.RINGING, _CONNECT),
    (State.RINGING, Event.HANG_UP): (State.LEAVING, (Action.SEND_HANG_UP,)),
    (State.UP, Event.MEDIA): (State.UP, _CONNECT),
    (State.UP, Event.HANG_UP): (State.LEAVING, (Action.SEND_HANG_UP,)),
    # 18x, 200 and re-INVITE may have been on their way when we left: the stack sends ACK and BYE.
    (State.LEAVING, Event.RING): (State.LEAVING, _NOTHING),
    (State.LEAVING, Event.ANSWER): (State.LEAVING, _NOTHING),
    (State.LEAVING, Event.MEDIA): (State.LEAVING, _NOTHING),
    (State.LEAVING, Event.HANG_UP): (State.LEAVING, _NOTHING),
}
for _state in (State.CALLING, State.RINGING, State.UP, State.LEAVING):
    TABLE[_state, Event.END] = (State.OVER, _FINISH)
for _state in (State.IDLE, State.CALLING, State.RINGING, State.UP, State.LEAVING):
    TABLE[_state, Event.LOST] = (State.OVER, _FINISH)
for _event in Event:
    TABLE[State.OVER, _event] = (State.OVER, _NOTHING)


class ProtocolViolationError(RuntimeError):
    """A bug: an event that cannot happen in this state (a ring before the call was placed)."""


class Session:
    """State of one outbound call and what is remembered of its way.

    ``placed``, ``rang``, ``connected`` and ``answered_late`` (a 200 that crossed our CANCEL) tell
    how far the call may have got; ``why`` is the first reason we had to hang up.
    """

    __slots__ = ("answered_late", "connected", "placed", "rang", "state", "why")

    def __init__(self) -> None:
        self.state = State.IDLE
        self.placed = False
        self.rang = False
        self.connected = False
        self.answered_late = False
        self.why = Why.NONE

    def advance(self, event: Event, why: Why = Why.NONE) -> Actions:
        """Take ``event``; what to do about it, in order."""
        before = self.state
        try:
            self.state, actions = TABLE[before, event]
        except KeyError:
            raise ProtocolViolationError(f"{event.name} in {before.name}") from None
        if event is Event.ANSWER:
            self.connected = self.connected or self.state is State.UP
            self.answered_late = self.answered_late or before is State.LEAVING
        elif event is Event.RING:
            self.rang = True
        elif event is Event.PLACE:
            self.placed = self.placed or before is State.IDLE
        if why is not Why.NONE and self.why is Why.NONE and before is not State.OVER:
            self.why = why
        return actions
