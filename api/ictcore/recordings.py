"""/messages/recordings: voice messages and their media."""

from __future__ import annotations

import msgspec
import trio
from msgspec import UNSET

from api.ictcore.fields import OWNER_FILTERS, Text, changes, plain, read_body, seconds
from api.ictcore.lists import find
from api.ictcore.media import read_file, uploaded
from api.paging import Filter, integer, string
from api.routing import Ask, Created, Done, File, Item, Reply, Route, Rows, both
from engine.model import Recording
from engine.store.base import Op

UPLOADS = ("audio/wav", "audio/mpeg", "audio/flac", "audio/ogg", "application/octet-stream")


class RecordingBody(msgspec.Struct, kw_only=True):
    """A recording as clients write it: the name is needed; its media is a call of its own."""

    name: Text = UNSET
    description: Text = UNSET
    type: Text = UNSET


class RecordingView(msgspec.Struct, kw_only=True):
    """A recording as clients read it; ``length`` is in seconds, ``file_name`` "" without media."""

    recording_id: int
    message_id: int
    name: str
    description: str
    type: str
    file_name: str
    link: str
    length: float
    codec: str
    channel: int
    sample: int
    bitrate: int
    user_id: int | None
    created_by: int | None
    date_created: int | None
    last_updated: int | None


FILTERS = {
    "recording_id": Filter("id", Op.EQ, integer),
    "name": Filter("name", Op.CONTAINS, string),
    "type": Filter("type", Op.CONTAINS, string),
    "description": Filter("description", Op.CONTAINS, string),
    **OWNER_FILTERS,
}


def to_json(recording: Recording) -> RecordingView:
    """The recording on the wire."""
    file_name = _file_name(recording.id) if recording.media_path else ""
    return RecordingView(
        recording_id=recording.id,
        message_id=recording.id,
        name=recording.name,
        description=recording.description,
        type=recording.type,
        file_name=file_name,
        link=file_name,
        length=plain(round(recording.length_s, 3)),
        codec="pcm_s16le",
        channel=1,
        sample=8000,
        bitrate=16,
        user_id=recording.owner_id,
        created_by=recording.owner_id,
        date_created=seconds(recording.created_at),
        last_updated=seconds(recording.updated_at),
    )


async def create(ask: Ask) -> Reply:
    """POST /messages/recordings."""
    body = await read_body(ask, RecordingBody, creating=True)
    recording = Recording(**{"name": "", **changes(body)})
    recording = await ask.engine.catalog.create(ask.who, recording)
    return Created("recording_id", recording.id)


async def index(ask: Ask) -> Reply:
    """GET /messages/recordings."""
    return await find(ask, Recording, FILTERS, to_json)


async def show(ask: Ask) -> Reply:
    """GET /messages/recordings/{recording_id}."""
    return Item(to_json(await ask.engine.catalog.read(ask.who, Recording, ask.id("recording_id"))))


async def update(ask: Ask) -> Reply:
    """PUT /messages/recordings/{recording_id}."""
    body = await read_body(ask, RecordingBody, creating=False)
    recording = await ask.engine.catalog.update(
        ask.who, Recording, ask.id("recording_id"), changes(body)
    )
    return Item(to_json(recording))


async def delete(ask: Ask) -> Reply:
    """DELETE /messages/recordings/{recording_id}."""
    await ask.engine.catalog.delete(ask.who, Recording, ask.id("recording_id"))
    return Done()


async def upload(ask: Ask) -> Reply:
    """PUT /messages/recordings/{recording_id}/media: takes the place of what was there."""
    file, recording_id = await uploaded(ask), ask.id("recording_id")
    await ask.engine.messages.set_media(ask.who, Recording, recording_id, file.chunks)
    return Created("recording_id", recording_id, fresh=False)


async def append(ask: Ask) -> Reply:
    """POST /messages/recordings/{recording_id}/media: is heard after what was there."""
    file, recording_id = await uploaded(ask), ask.id("recording_id")
    await ask.engine.messages.add_media(ask.who, Recording, recording_id, file.chunks)
    return Created("recording_id", recording_id, fresh=False)


async def download(ask: Ask) -> Reply:
    """GET /messages/recordings/{recording_id}/media: the 8 kHz WAV that is played."""
    recording_id = ask.id("recording_id")
    path = await ask.engine.messages.media(ask.who, Recording, recording_id)
    size = (await trio.Path(path).stat()).st_size
    return File(_file_name(recording_id), "audio/wav", read_file(path), size)


def _file_name(recording_id: int) -> str:
    return f"recording_{recording_id}.wav"


_ALL = "/messages/recordings"
_ONE = "/messages/recordings/{recording_id}"

ROUTES = both(
    "/messages",
    Route(verb="POST", path=_ALL, handler=create, summary="Create a recording",
          answer=Created, view="recording_id", body=RecordingBody),
    Route(verb="GET", path=_ALL, handler=index, summary="List recordings",
          answer=Rows, view=RecordingView, filters=FILTERS),
    Route(verb="GET", path=_ONE, handler=show, summary="Read a recording",
          answer=Item, view=RecordingView),
    Route(verb="PUT", path=_ONE, handler=update, summary="Update a recording",
          answer=Item, view=RecordingView, body=RecordingBody),
    Route(verb="DELETE", path=_ONE, handler=delete, summary="Delete a recording", answer=Done,
          statuses=(417,)),
    Route(verb="PUT", path=_ONE + "/media", handler=upload,
          summary="Upload a WAV, MP3, FLAC or OGG file", answer=Created, view="recording_id",
          body=UPLOADS, statuses=(411, 415)),
    Route(verb="POST", path=_ONE + "/media", handler=append,
          summary="Add a WAV, MP3, FLAC or OGG file to the end", answer=Created,
          view="recording_id", body=UPLOADS, statuses=(411, 415)),
    Route(verb="GET", path=_ONE + "/media", handler=download, summary="Download the recording",
          answer=File, view="audio/wav"),
)  # fmt: skip
