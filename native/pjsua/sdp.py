"""SDP as text: what pjsua wrote, with our RTP engine's address in it; what the far end answered."""

from __future__ import annotations

import re

DTMF_PAYLOAD = 101  # the number everybody uses for telephone-event; pjsua would offer 120
_PLAIN = "RTP/AVP"
_AUDIO = re.compile(r"^m=audio (\d+)\S* (\S+)", re.MULTILINE)
_MEDIA = re.compile(r"^m=", re.MULTILINE)
_EVENT = re.compile(
    r"^a=rtpmap:(\d{1,3}) telephone-event/8000", re.MULTILINE | re.IGNORECASE | re.ASCII
)
# What pjsua writes for every first offer of ours but for o= and the port: filled in at once.
_OUR_OFFER = re.compile(
    r"v=0\r\n(o=\S+ \d+ \d+ IN IP4) .*\nm=audio \d+ RTP/AVP 0 8 120\r\n", re.DOTALL
)


def rewrite(text: str, host: str, port: int, *, offer: bool) -> str:
    """``text`` with ``host``/``port`` in o=, c= and the first m=audio line, without a=rtcp.

    A port of 0 (refused media) stays 0 and no m= line is added: either aborts pjsua. In an offer
    telephone-event gets payload type 101; in an answer the offerer's number stands (RFC 3264 §6.1).
    """
    usual = offer and text.count("\nm=") == 1 and "\r\na=sendrecv\r\n" in text
    ours = _OUR_OFFER.match(text) if usual else None
    if ours is not None:
        return (
            f"v=0\r\n{ours[1]} {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\n"
            f"m=audio {port} RTP/AVP 0 8 {DTMF_PAYLOAD}\r\na=rtpmap:0 PCMU/8000\r\n"
            f"a=rtpmap:8 PCMA/8000\r\na=rtpmap:{DTMF_PAYLOAD} telephone-event/8000\r\n"
            f"a=fmtp:{DTMF_PAYLOAD} 0-16\r\na=sendrecv\r\n"
        )
    lines: list[str] = []
    old_dtmf = ""
    audio_seen = False
    source = text.replace("\r\n", "\n").split("\n")
    if offer:
        old_dtmf = _telephone_event(source)
    for line in source:
        if not line or line.startswith("a=rtcp:"):
            continue
        if line.startswith("o="):
            lines.append(f"{line.rsplit(' ', 1)[0]} {host}")
        elif line.startswith("c=IN IP4"):
            # 0.0.0.0 is a hold of the old kind (RFC 3264 §8.4): leave it.
            lines.append(line if line.endswith(" 0.0.0.0") else f"c=IN IP4 {host}")
        elif line.startswith("m=audio ") and not audio_seen:
            audio_seen = True
            lines.append(_media_line(line, port, old_dtmf))
        elif old_dtmf and line.startswith((f"a=rtpmap:{old_dtmf} ", f"a=fmtp:{old_dtmf} ")):
            name, rest = line.split(" ", 1)
            lines.append(f"{name.split(':')[0]}:{DTMF_PAYLOAD} {rest}")
        else:
            lines.append(line)
    return "\r\n".join(lines) + "\r\n"


def _media_line(line: str, port: int, old_dtmf: str) -> str:
    words = line.split()
    if words[1].split("/")[0] != "0":
        words[1] = str(port)
    formats = [str(DTMF_PAYLOAD) if old_dtmf and word == old_dtmf else word for word in words[3:]]
    return " ".join(words[:3] + formats)


def _telephone_event(lines: list[str]) -> str:
    for line in lines:
        if line.startswith("a=rtpmap:") and "telephone-event/" in line.lower():
            return line[9:].split(" ", 1)[0]
    return ""


def body(message: str) -> str:
    """The SDP of a SIP message as it came off the wire, "" where it has none."""
    start = message.find("\r\n\r\n")
    if start < 0:
        return ""
    found = message.find("v=0", start)
    return message[found:] if found >= 0 else ""


def dtmf_payload(text: str) -> int:
    """The payload type the far end wants telephone-event in (RFC 4733 §2.5.1.1), -1 where none."""
    audio = _AUDIO.search(text)
    if audio is None:
        return -1
    after = _MEDIA.search(text, audio.end())
    found = _EVENT.search(text, audio.end(), after.start() if after else len(text))
    return int(found[1]) if found else -1


def plain_rtp(text: str) -> bool:
    """False where the first audio line is live and not plain RTP/AVP.

    pjsua takes RTP/SAVP in an answer to our RTP/AVP offer for plain RTP; RFC 3264 §6 forbids it.
    """
    audio = _AUDIO.search(text)
    return audio is None or audio[1] == "0" or audio[2].upper() == _PLAIN


def q850_cause(message: str) -> int:
    """The Q.850 cause in a Reason header (RFC 3326 §2) of a SIP message, 0 where none."""
    for line in message.split("\r\n\r\n", 1)[0].split("\r\n"):
        name, _, value = line.partition(":")
        if name.strip().lower() != "reason" or "q.850" not in value.lower():
            continue
        for part in value.split(";"):
            key, _, number = part.strip().partition("=")
            if key.strip().lower() == "cause" and number.strip().isdigit():
                return int(number)
    return 0
