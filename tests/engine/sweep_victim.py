"""Somebody who keeps files, to be killed: ``python -m tests.engine.sweep_victim FOLDER WAY``.

The files are on the disk and the row that names them is not. It says ``kept`` there and waits.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import trio

from engine.auth import ROLES, Principal
from engine.bus import Bus
from engine.catalog import Catalog
from engine.clock import now
from engine.inbound_mail import InboundMails
from engine.mail import MailFile
from engine.messages import Messages
from engine.model import Account, Program, Recording, Template
from engine.store import open_store
from engine.store.base import Store
from engine.uploads import MediaFolder
from tests.api.node import sound
from tests.support.engine import config_in
from tests.support.mails import inbound

_STDOUT = 1
US = Principal(user_id=1, username="us", permissions=ROLES["user"])


async def _never(*_: Any) -> None:
    """One write, no buffer: the parent hears it whatever comes."""
    os.write(_STDOUT, b"kept\n")
    await trio.sleep_forever()


async def _chunks(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _mail(store: Store, folder: Path) -> None:
    account = await store.insert(Account(email="us@example.net", active=True))
    await store.insert(Program(name="in", type="receiveemail", data={"account_id": account.id}))
    file = folder / "came.pdf"
    file.write_bytes(b"attached")
    files = (MailFile(file, "came.pdf", "application/pdf", 8),)
    mails = InboundMails(store, now, Bus(), MediaFolder(config_in(folder)))
    store.receive = _never  # type: ignore[method-assign, assignment]
    await mails.receive(inbound(files=files))


async def _recording(store: Store, folder: Path) -> None:
    catalog = Catalog(store, now, config_in(folder))
    recording = await catalog.create(US, Recording(name="hello"))
    store.update = _never  # type: ignore[method-assign, assignment]
    data = sound("WAV", "PCM_16", rate=8000, channels=1)
    await Messages(catalog).set_media(US, Recording, recording.id, _chunks(data))


async def _attachment(store: Store, folder: Path) -> None:
    catalog = Catalog(store, now, config_in(folder))
    template = await catalog.create(US, Template(name="news", body="x"))
    store.update = _never  # type: ignore[method-assign, assignment]
    await Messages(catalog).attach(
        US, template.id, _chunks(b"terms"), name="t.pdf", type="", replace=True
    )


async def _keep(folder: Path, way: str) -> None:
    async with open_store(config_in(folder)) as store:
        await {"mail": _mail, "recording": _recording, "attachment": _attachment}[way](
            store, folder
        )


if __name__ == "__main__":
    trio.run(_keep, Path(sys.argv[1]), sys.argv[2])
