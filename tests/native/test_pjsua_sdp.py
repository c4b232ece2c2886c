"""SDP as text: our address in, the far end's facts out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from native.pjsua import sdp

OFFER = "\r\n".join(  # noqa: FLY002 - one line of SDP a line
    [
        "v=0",
        "o=- 1 1 IN IP4 10.0.0.9",
        "s=pjmedia",
        "c=IN IP4 10.0.0.9",
        "t=0 0",
        "m=audio 4000 RTP/AVP 0 8 120",
        "a=rtcp:4001 IN IP4 10.0.0.9",
        "a=rtpmap:0 PCMU/8000",
        "a=rtpmap:120 telephone-event/8000",
        "a=fmtp:120 0-16",
        "m=video 0 RTP/AVP 99",
        "",
    ]
)


def test_an_offer_gets_our_address_and_telephone_event_101() -> None:
    lines = sdp.rewrite(OFFER, "192.0.2.7", 20_000, offer=True).split("\r\n")
    assert "o=- 1 1 IN IP4 192.0.2.7" in lines
    assert "c=IN IP4 192.0.2.7" in lines
    assert "m=audio 20000 RTP/AVP 0 8 101" in lines
    assert "a=rtpmap:101 telephone-event/8000" in lines
    assert "a=fmtp:101 0-16" in lines
    assert not any("rtcp" in line or "120" in line for line in lines)


def test_the_usual_offer_is_filled_in_with_the_same_meaning() -> None:
    usual = "\r\n".join(OFFER.split("\r\n")[:-2]) + "\r\na=sendrecv\r\n"
    filled = sdp.rewrite(usual, "192.0.2.7", 20_000, offer=True).split("\r\n")
    slow = sdp.rewrite(
        usual + "a=x-other\r\nm=video 0 RTP/AVP 99\r\n", "192.0.2.7", 20_000, offer=True
    )
    for line in filled:
        assert line.startswith(("s=", "a=rtpmap:8 ")) or line in slow.split("\r\n")
    assert "s=-" in filled


def test_an_answer_keeps_the_offerers_payload_type() -> None:
    text = sdp.rewrite(OFFER, "192.0.2.7", 20_000, offer=False)
    assert "m=audio 20000 RTP/AVP 0 8 120" in text
    assert sdp.dtmf_payload(text) == 120


def test_refused_media_stays_refused_and_no_line_is_added() -> None:
    """Pitfalls (c), (d): rewriting port 0 or adding m= lines aborts pjsua."""
    text = sdp.rewrite(OFFER.replace("audio 4000", "audio 0"), "192.0.2.7", 20_000, offer=False)
    assert "m=audio 0 RTP/AVP" in text
    assert text.count("m=") == OFFER.count("m=")


def test_a_hold_of_the_old_kind_is_left_alone() -> None:
    held = OFFER.replace("c=IN IP4 10.0.0.9", "c=IN IP4 0.0.0.0")
    assert "c=IN IP4 0.0.0.0" in sdp.rewrite(held, "192.0.2.7", 20_000, offer=False)


def test_only_the_first_audio_line_is_ours() -> None:
    two = OFFER + "m=audio 5000 RTP/AVP 0\r\n"
    assert "m=audio 5000 RTP/AVP 0" in sdp.rewrite(two, "192.0.2.7", 20_000, offer=False)


def test_plain_rtp() -> None:
    assert sdp.plain_rtp(OFFER)
    assert not sdp.plain_rtp(OFFER.replace("4000 RTP/AVP", "4000 RTP/SAVP"))
    assert sdp.plain_rtp("")


def test_no_telephone_event() -> None:
    assert sdp.dtmf_payload(OFFER.replace("telephone-event", "x")) == -1


def test_the_cause_of_a_reason_header() -> None:
    head = "SIP/2.0 503 No\r\nVia: x\r\n{}\r\n\r\nbody"
    assert sdp.q850_cause(head.format('Reason: Q.850 ;cause=34 ;text="No; circuit"')) == 34
    assert sdp.q850_cause(head.format("reason: SIP;cause=486")) == 0
    assert sdp.q850_cause(head.format("Reason: q.850;cause=abc")) == 0
    assert sdp.q850_cause("") == 0


@given(st.text())
def test_no_text_of_a_far_end_raises(text: str) -> None:
    sdp.rewrite(text, "192.0.2.7", 20_000, offer=True)
    sdp.dtmf_payload(text)
    sdp.plain_rtp(text)
    sdp.q850_cause(text)
    sdp.body(text)
