"""What the callee hears is what was uploaded: through the API, the store, SIP and RTP, to the end.

The far end is plain Python with sockets of its own and libsndfile's decoder: none of our C code and
nothing of pjproject judges itself here.
"""

from __future__ import annotations

import io
from pathlib import Path

import httpx
import numpy as np
import pytest
import scipy.signal
import soundfile

from tests.acceptance.session import create, wait_completed
from tests.support.audio import RATE, Samples, compare, decode
from tests.support.node_process import config_text, node_process
from tests.support.rtp_peer import open_peer
from tests.support.uas import Dialog, run_uas, sdp

SECONDS = 6.0
UPLOAD_RATE = 44_100


def _upload(kind: str) -> bytes:
    """The signal as somebody might have it: 44.1 kHz stereo."""
    at = np.arange(int(UPLOAD_RATE * SECONDS)) / UPLOAD_RATE
    mono = 12_000 / 32_768 * scipy.signal.chirp(at, 300, SECONDS, 3400, method="linear")
    out = io.BytesIO()
    soundfile.write(out, np.column_stack([mono, mono]), UPLOAD_RATE, format=kind)
    return out.getvalue()


async def _campaign_of_one(
    client: httpx.AsyncClient, port: int, content: bytes, content_type: str
) -> int:
    trunk = {"name": "far end", "type": "sip", "host": "127.0.0.1", "port": port}
    await create(client, "/providers", "provider_id", trunk)
    recording = await create(client, "/messages/recordings", "recording_id", {"name": "chirp"})
    answer = await client.put(
        f"/messages/recordings/{recording}/media",
        content=content,
        headers={"Content-Type": content_type},
    )
    assert answer.status_code == 200, answer.text
    body = {"name": "chirp", "recording_id": recording}
    program = await create(client, "/programs/voicemessage", "program_id", body)
    group = await create(client, "/groups", "group_id", {"name": "one"})
    contact = await create(client, "/contacts", "contact_id", {"phone": "4930", "first_name": "A"})
    answer = await client.put(f"/contacts/{contact}/link/{group}")
    assert answer.status_code == 200, answer.text
    campaign = {"program_id": program, "group_id": group, "cpm": 600}
    return await create(client, "/campaigns", "campaign_id", campaign)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "content_type", "codec"),
    [("WAV", "audio/wav", 0), ("MP3", "audio/mpeg", 8)],
)
async def test_the_callee_hears_the_whole_upload_and_then_bye(
    tmp_path: Path, kind: str, content_type: str, codec: int
) -> None:
    config = tmp_path / "outspool.toml"
    config.write_text(config_text(tmp_path))
    content = _upload(kind)
    async with open_peer() as peer:

        async def answer(dialog: Dialog) -> None:
            await dialog.respond(dialog.invite, "180 Ringing")
            await dialog.answer(sdp(port=peer.address[1], formats=f"{codec} 101"))
            await dialog.until_bye()

        async with run_uas(answer) as uas, node_process(config) as node:
            async with node.client() as client:
                campaign_id = await _campaign_of_one(client, uas.port, content, content_type)
                await client.put(f"/campaigns/{campaign_id}/start")
                campaign = await wait_completed(client, campaign_id)
            assert await node.terminate() == 0
        heard = decode(peer.audio(codec), codec)
    assert campaign["tally"]["completed"] == 1
    expected = _at_telephone_rate(content)
    match = compare(expected, heard)
    assert match.correlation > 0.99
    assert match.worst > 0.98, "a part is missing or was replaced"
    assert match.spectrum_db < 1.0
    before, after = match.start, len(heard) - match.start - len(expected)
    assert before <= RATE, "the recording begins within a second of the answer"
    # A jitter buffer plays up to 200 ms late: packets must go on after the recording's last one.
    assert after >= RATE // 5, "BYE cuts what a far end has not played yet"
    assert after <= RATE, "and BYE follows its end"


def _at_telephone_rate(content: bytes) -> Samples:
    """The upload as another resampler makes it, without its first and last 10 ms (filter edges)."""
    samples, rate = soundfile.read(io.BytesIO(content))
    mono = samples.mean(axis=1)
    low = scipy.signal.resample_poly(mono, RATE // 100, rate // 100)
    return np.asarray(np.round(low * 32_767), dtype=np.int16)[80:-80]
