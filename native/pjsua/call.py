"""One outbound call inside a worker: pjsua2's callbacks turned into lines for the node."""

from __future__ import annotations

from typing import Any, Protocol

import pjsua2 as pj

from native.pjsua import sdp
from native.pjsua.wire import CallSpec, Final, Origin, Remote, Verb

_ORIGINS = {
    pj.PJSIP_EVENT_RX_MSG: Origin.WIRE,
    pj.PJSIP_EVENT_TIMER: Origin.TIMER,
    pj.PJSIP_EVENT_TRANSPORT_ERROR: Origin.TRANSPORT,
}
_MAX_REASON = 120
_SUCCESS, _REDIRECT = 200, 300


class Desk(Protocol):
    """What a call needs of its worker."""

    def say(self, *words: Any) -> None:
        """Send one line to the node with the next batch."""
        ...

    def touched(self, call: WorkerCall) -> None:
        """Have ``report`` called once the current events are handled."""
        ...

    def ended(self, call: WorkerCall, number: int) -> None:
        """The call is over (its slot may not be free yet)."""
        ...


class WorkerCall(pj.Call):  # type: ignore[misc]
    """A pooled pjsua2 call: made once, used for many calls, never destroyed.

    Destroying a ``Call`` whose slot was given away silences the new call in that slot.
    """

    def __init__(self, account: pj.Account, desk: Desk) -> None:
        super().__init__(account)
        self._desk = desk
        self._prm = pj.CallOpParam(True)
        self._prm.opt.videoCount = 0
        self._has_headers = False
        self._hangup_prm = pj.CallOpParam()
        self.number = -1
        self._clear()

    def _clear(self) -> None:
        self._status = 0
        self._said_status = 0
        self._rang = self._up = self._said_up = self._answered = False
        self._media_changed = self._media_seen = False
        self._remote_text = ""
        self._said_remote = Remote()
        self._hung_up = self._placing = False

    def place(self, number: int, spec: CallSpec) -> None:
        """Send the INVITE; raises ``pj.Error`` where the stack refuses."""
        self._clear()
        self.number = number
        self._rtp = (spec.rtp_host, spec.rtp_port)
        prm, option = self._prm, self._prm.txOption
        prm.opt.customCallId = spec.call_id
        option.localUri = spec.from_uri
        if spec.headers or self._has_headers:
            option.headers = _header_vector(spec.headers)
            self._has_headers = bool(spec.headers)
        self._placing = True
        try:
            self.makeCall(spec.request_uri, prm)
        finally:
            self._placing = False

    def hang_up(self) -> None:
        """CANCEL or BYE, whichever fits; nothing where that was done already."""
        if self._hung_up or self.number < 0:
            return
        self._hung_up = True
        self.hangup(self._hangup_prm)

    # pjsua2's callbacks

    def onCallSdpCreated(self, prm: Any) -> None:  # noqa: N802
        """Put the RTP engine's address into every SDP pjsua makes."""
        offered = prm.remSdp.wholeSdp
        if offered:
            self._remote_text = offered
        prm.sdp.wholeSdp = sdp.rewrite(prm.sdp.wholeSdp, *self._rtp, offer=not offered)

    def onCallState(self, prm: Any) -> None:  # noqa: N802
        """Note how far the call got; the end is said at once, the rest with the batch."""
        if self._placing:
            # makeCall itself says CALLING; asking for the state is dear.
            self._placing = False
            return
        info = self.getInfo()
        state = info.state
        if state == pj.PJSIP_INV_STATE_DISCONNECTED:
            self._say_end(info, prm.e)
            return
        if state == pj.PJSIP_INV_STATE_EARLY:
            self._rang = True
            self._status = info.lastStatusCode
        elif state == pj.PJSIP_INV_STATE_CONNECTING:
            self._answered = True
        elif state == pj.PJSIP_INV_STATE_CONFIRMED:
            self._answered = self._up = True
        self._desk.touched(self)

    def onCallMediaState(self, prm: Any) -> None:  # noqa: N802, ARG002
        """The far end's address, codec or direction may have changed."""
        self._media_changed = self._media_seen = True
        self._desk.touched(self)

    def onCallTsxState(self, prm: Any) -> None:  # noqa: N802
        """Keep the far end's last answer: telephone-event and the profile are only there.

        Its offers come with ``onCallSdpCreated``, and only those that pjsua did not refuse.
        """
        if not self._media_changed:
            return  # onCallMediaState comes first: there was no SDP in this one
        _, message = _source(prm.e)
        text = sdp.body(message)
        if text and message.startswith(("SIP/2.0 ", "ACK ")):
            self._remote_text = text

    # lines to the node

    def report(self) -> None:
        """Say what changed since the last time, in one line."""
        if self.number < 0:
            return
        remote = self._changed_remote()
        if self._up and not self._media_seen:
            # Answered with SDP that pjsua refuses: its BYE is on the way, nobody can talk.
            return
        if self._up and not self._said_up:
            self._said_up = True
            self._desk.say(Verb.UP, self.number, remote)
        elif not self._up and self._status != self._said_status:
            self._said_status = self._status
            self._desk.say(Verb.RING, self.number, self._status, remote)
        elif remote is not None:
            self._desk.say(Verb.MEDIA, self.number, remote)

    def _changed_remote(self) -> Remote | None:
        if not self._media_changed:
            return None
        self._media_changed = False
        if not sdp.plain_rtp(self._remote_text):
            # pjsua would go on with SAVP as if it were plain RTP.
            self.hang_up()
            return None
        remote = self._read_remote()
        if remote == self._said_remote:
            return None
        self._said_remote = remote
        return remote

    def _read_remote(self) -> Remote:
        try:
            # Our offers have one line, and later offers keep its place (RFC 3264 §8).
            stream = self.getStreamInfo(0)
        except pj.Error:
            # Inactive or 0.0.0.0 from the start, or a failed update: there is no stream.
            return Remote()
        host, _, port = stream.remoteRtpAddress.rpartition(":")
        return Remote(
            host=host,
            port=int(port),
            payload_type=stream.txPt,
            dtmf_payload_type=sdp.dtmf_payload(self._remote_text),
            send=bool(stream.dir & pj.PJMEDIA_DIR_ENCODING) and host != "0.0.0.0",  # noqa: S104 - a hold of the old kind, nothing is bound
        )

    def _say_end(self, info: Any, event: Any) -> None:
        origin, message = _source(event)
        code, reason, answered = info.lastStatusCode, info.lastReason, self._answered
        if message.startswith("SIP/2.0 "):
            status = int(message[8:11])
            if status >= _REDIRECT:
                # pjsua says 487 for a redirect that is not followed: the wire knows better.
                code, reason = status, message[12 : message.find("\r\n")]
            elif not self._up and status >= _SUCCESS:
                # Answered, but what was answered is of no use to pjsua.
                origin, answered = Origin.LOCAL, True
        final = Final(
            code=code,
            reason=reason[:_MAX_REASON],
            q850=sdp.q850_cause(message),
            origin=origin,
            by_callee=message.startswith("BYE "),
            answered=answered,
            rang=self._rang,
        )
        number, self.number = self.number, -1
        self._desk.say(Verb.END, number, final)
        self._desk.ended(self, number)


def _header_vector(headers: list[tuple[str, str]]) -> Any:
    vector = pj.SipHeaderVector()
    for name, value in headers:
        header = pj.SipHeader()
        header.hName = name
        header.hValue = value
        vector.append(header)
    return vector


def _source(event: Any) -> tuple[Origin, str]:
    """Where an end comes from, and the message that brought it, if one did."""
    if event.type != pj.PJSIP_EVENT_TSX_STATE:
        return Origin.LOCAL, ""
    body = event.body
    change = body.tsxState
    origin = _ORIGINS.get(change.type, Origin.LOCAL)
    return origin, change.src.rdata.wholeMsg if origin is Origin.WIRE else ""
