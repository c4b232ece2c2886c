"""/messages/recordings and their media over HTTP."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import trio

from tests.api.node import Node, made, made_program, running_node, sound

PATH = "/messages/recordings"


def played(wav: bytes) -> tuple[float, float, int, int, str]:
    """Length in s, loudest frequency in Hz, rate, channels and sample format of a file."""
    with soundfile.SoundFile(io.BytesIO(wav)) as file:
        samples = file.read()
        spectrum = np.abs(np.fft.rfft(samples))
        peak = float(np.argmax(spectrum)) * file.samplerate / len(samples)
        return len(samples) / file.samplerate, peak, file.samplerate, file.channels, file.subtype


@pytest.mark.parametrize(
    ("format_", "subtype", "rate", "channels"),
    [
        ("WAV", "PCM_16", 8000, 1),
        ("WAV", "PCM_24", 96_000, 2),
        ("WAV", "FLOAT", 22_050, 1),
        ("WAV", "ULAW", 8000, 1),
        ("WAV", "PCM_16", 11_025, 6),
        ("FLAC", "PCM_16", 44_100, 2),
        ("OGG", "VORBIS", 48_000, 2),
        ("OGG", "OPUS", 48_000, 1),
        ("MP3", "MPEG_LAYER_III", 44_100, 2),
        ("MP3", "MPEG_LAYER_III", 16_000, 1),
    ],
)
async def test_every_kind_of_upload_becomes_telephone_sound(
    node: Node, format_: str, subtype: str, rate: int, channels: int
) -> None:
    recording = await made(node.client, PATH, name="hello")
    upload = sound(format_, subtype, rate=rate, channels=channels)
    # The header says nothing true: the bytes decide.
    response = await node.client.put(
        f"{PATH}/{recording}/media", content=upload, headers={"Content-Type": "text/plain"}
    )
    assert response.json() == {"recording_id": recording}, response.text
    media = await node.client.get(f"{PATH}/{recording}/media")
    assert media.headers["Content-Type"] == "audio/wav"
    assert f'filename="recording_{recording}.wav"' in media.headers["Content-Disposition"]
    length_s, peak, *kind = played(media.content)
    assert kind == [8000, 1, "PCM_16"]
    assert length_s == pytest.approx(1, abs=0.1)  # MP3 pads
    assert peak == pytest.approx(440, abs=3)
    shown = (await node.client.get(f"{PATH}/{recording}")).json()
    assert shown["length"] == pytest.approx(length_s, abs=0.001)
    assert shown["file_name"] == f"recording_{recording}.wav"


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 411),
        (b"%PDF-1.4 this is a document", 415),
        (b"RIFF" + bytes(100), 415),
        (sound("AIFF", "PCM_16"), 415),
        (sound("WAV", rate=8000)[:44], 412),
        (sound("WAV", rate=800), 412),
    ],
)
async def test_what_cannot_be_played_is_refused(node: Node, content: bytes, status: int) -> None:
    recording = await made(node.client, PATH, name="hello")
    response = await node.client.put(f"{PATH}/{recording}/media", content=content)
    assert response.status_code == status, response.text
    assert (await node.client.get(f"{PATH}/{recording}/media")).status_code == 404
    assert (await node.client.get(f"{PATH}/{recording}")).json()["file_name"] == ""


async def test_a_damaged_file_keeps_what_was_there(node: Node) -> None:
    recording = await made(node.client, PATH, name="hello")
    good = sound("FLAC")
    await node.client.put(f"{PATH}/{recording}/media", content=good)
    before = (await node.client.get(f"{PATH}/{recording}/media")).content
    damaged = good[:200] + bytes(len(good) - 400) + good[-200:]
    assert (await node.client.put(f"{PATH}/{recording}/media", content=damaged)).status_code in (
        412,
        415,
    )
    assert (await node.client.get(f"{PATH}/{recording}/media")).content == before


async def test_sizes_and_lengths_are_limited(tmp_path: Path) -> None:
    async with running_node(tmp_path, max_media_bytes=100_000) as node:
        recording = await made(node.client, PATH, name="hello")
        large = sound("WAV", rate=48_000)
        response = await node.client.put(f"{PATH}/{recording}/media", content=large)
        assert response.status_code == 413


async def test_replacing_makes_a_new_file_and_keeps_the_originals(
    node: Node, tmp_path: Path
) -> None:
    recording = await made(node.client, PATH, name="hello")
    files = []
    uploads = (sound("WAV", rate=8000), sound("OGG", "VORBIS"))
    for upload in uploads:
        await node.client.put(f"{PATH}/{recording}/media", content=upload)
        files.append(set((tmp_path / "media").glob("*.*")))
    first, both = files
    assert first < both, "a call may still be about to play the first"
    (original,) = (path for path in both - first if "original" in path.name)
    assert original.read_bytes() == uploads[1]
    assert {path.suffix for path in both} == {".wav", ".ogg"}


async def test_added_sound_is_heard_after_what_was_there(node: Node) -> None:
    recording = await made(node.client, PATH, name="hello")
    for seconds, upload in enumerate((sound("FLAC"), sound("WAV", rate=8000), sound("OGG")), 1):
        response = await node.client.post(f"{PATH}/{recording}/media", content=upload)
        assert response.json() == {"recording_id": recording}
        shown = (await node.client.get(f"{PATH}/{recording}")).json()
        assert shown["length"] == pytest.approx(seconds, abs=0.01)
    media = await node.client.get(f"/recordings/{recording}/media")
    length_s, peak, *_ = played(media.content)
    assert length_s == pytest.approx(3, abs=0.01)
    assert peak == pytest.approx(440, abs=3)
    await node.client.put(f"{PATH}/{recording}/media", content=sound("WAV", rate=8000))
    assert (await node.client.get(f"{PATH}/{recording}")).json()["length"] == 1


async def test_sound_that_is_added_by_many_at_once_is_all_there(node: Node) -> None:
    recording = await made(node.client, PATH, name="hello")
    upload = sound("WAV", rate=8000, channels=1)
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(
                lambda: node.client.post(f"{PATH}/{recording}/media", content=upload)
            )
    assert (await node.client.get(f"{PATH}/{recording}")).json()["length"] == 5


async def test_sound_in_an_envelope(node: Node) -> None:
    recording = await made(node.client, PATH, name="hello")
    url = "data:audio/wav;base64," + base64.b64encode(sound("WAV", rate=8000)).decode()
    response = await node.client.put(
        f"/api/recordings/{recording}/media", content=url, headers={"Content-Type": "base64"}
    )
    assert (response.status_code, response.json()) == (200, str(recording))
    file = {"file": ("x.wav", sound("WAV", rate=8000), "audio/wav")}
    response = await node.client.post(f"/api/messages/recordings/{recording}/media", files=file)
    assert response.json() == str(recording)
    assert (await node.client.get(f"{PATH}/{recording}")).json()["length"] == 2


async def test_both_paths_lead_to_the_same(node: Node) -> None:
    recording = await made(node.client, "/recordings", name="hello", type="mp3")
    shown = (await node.client.get(f"{PATH}/{recording}")).json()
    assert (shown["name"], shown["type"], shown["message_id"]) == ("hello", "mp3", recording)
    assert (await node.client.get("/recordings", params={"type": "mp"})).json() == [shown]
    assert (await node.client.delete(f"/recordings/{recording}")).json() is True


async def test_crud(node: Node) -> None:
    recording = await made(node.client, PATH, name="hello", description="a greeting")
    renamed = await node.client.put(f"{PATH}/{recording}", json={"name": "welcome"})
    assert (renamed.json()["name"], renamed.json()["description"]) == ("welcome", "a greeting")
    found = await node.client.get(PATH, params={"description": "GREET"})
    assert [row["recording_id"] for row in found.json()] == [recording]
    assert (await node.client.post(PATH, json={})).status_code == 412
    assert (await node.client.delete(f"{PATH}/{recording}")).json() is True
    assert (await node.client.get(f"{PATH}/{recording}")).status_code == 404
    nowhere = await node.client.put(f"{PATH}/{recording}/media", content=sound("WAV"))
    assert nowhere.status_code == 404


async def test_a_recording_in_use_is_not_deleted(node: Node) -> None:
    program = await made_program(node.client)
    recording = (await node.client.get(f"/programs/{program}")).json()["recording_id"]
    assert (await node.client.delete(f"{PATH}/{recording}")).status_code == 417
    assert (await node.client.delete(f"/programs/{program}")).json() is True
    assert (await node.client.delete(f"{PATH}/{recording}")).json() is True
