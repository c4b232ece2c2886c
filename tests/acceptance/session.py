"""The operator's session of the README, over HTTP: from a trunk to a campaign ready to start."""

from __future__ import annotations

import io
from typing import Any

import httpx
import numpy as np
import soundfile
import trio

RATE = 16_000
DEADLINE_S = 180.0


def tone_wav(seconds: float) -> bytes:
    """A recording as somebody might upload it: 16 kHz stereo."""
    at = np.arange(int(RATE * seconds)) / RATE
    mono = 0.4 * np.sin(2 * np.pi * 440 * at)
    out = io.BytesIO()
    soundfile.write(out, np.column_stack([mono, mono]), RATE, format="WAV")
    return out.getvalue()


async def create(client: httpx.AsyncClient, path: str, key: str, body: dict[str, Any]) -> int:
    """POST, and the id of what was made."""
    answer = await client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    made: int = answer.json()[key]
    return made


async def prepare_campaign(
    client: httpx.AsyncClient,
    sip_port: int,
    contacts: int,
    *,
    recording_s: float = 0.2,
    provider: dict[str, Any] | None = None,
    campaign: dict[str, Any] | None = None,
) -> int:
    """Provider, recording with media, program, group, CSV of contacts, campaign; its id."""
    trunk = {"name": "carrier", "type": "sip", "host": "127.0.0.1", "port": sip_port}
    await create(client, "/providers", "provider_id", trunk | (provider or {}))
    recording = await create(client, "/messages/recordings", "recording_id", {"name": "hello"})
    answer = await client.put(
        f"/messages/recordings/{recording}/media",
        content=tone_wav(recording_s),
        headers={"Content-Type": "audio/wav"},
    )
    assert answer.status_code == 200, answer.text
    program = await create(
        client,
        "/programs/voicemessage",
        "program_id",
        {"name": "hello", "recording_id": recording},
    )
    group = await create(client, "/groups", "group_id", {"name": "people"})
    lines = "".join(f"49{n:08d},First{n},Last{n},,,,,,\n" for n in range(contacts))
    answer = await client.post(
        f"/groups/{group}/csv", content=lines, headers={"Content-Type": "text/csv"}
    )
    assert answer.status_code == 200, answer.text
    body = {"program_id": program, "group_id": group, "cpm": 6000, "try_allowed": 2}
    return await create(client, "/campaigns", "campaign_id", body | (campaign or {}))


async def wait_completed(client: httpx.AsyncClient, campaign_id: int) -> dict[str, Any]:
    """Poll, as a client does, until the campaign is completed; the campaign."""
    with trio.fail_after(DEADLINE_S):
        while True:
            answer = await client.get(f"/campaigns/{campaign_id}")
            assert answer.status_code == 200, answer.text
            found: dict[str, Any] = answer.json()
            if found["status"] == "completed":
                return found
            await trio.sleep(0.5)  # another process: there is nothing to wait on
