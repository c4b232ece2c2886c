"""Mail in a group commit: alone, together with others, and where another's row is gone."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import msgspec
import pytest

from engine.model import DoNotContact, SpoolResult, TransmissionStatus
from engine.store.base import Query
from tests.engine.store.held import in_one_batch, opened
from tests.suites.store_mail_suite import DEFERRED, ROW, mail
from tests.suites.store_scene import AT, set_scene


@pytest.mark.parametrize("broken", [False, True], ids=["together", "one by one"])
async def test_each_operation_counts_once(tmp_path: Path, *, broken: bool) -> None:
    async with opened(tmp_path) as store:
        scene = await set_scene(store)
        members = await scene.members(4)
        put_off, ended = await scene.begin(members[:2])
        await scene.finish(ended)
        contact_id = 4711 if broken else members[2].contact.id
        other = msgspec.structs.replace(scene.intent(members[2]), contact_id=contact_id)
        answers = await in_one_batch(
            store,
            partial(store.begin_spools, [other]),
            partial(scene.finish, put_off, DEFERRED, TransmissionStatus.PENDING, AT),
            partial(store.annotate, ended.spool_id, [ROW], AT),
            partial(store.annotate, ended.spool_id, [ROW], AT),
            partial(store.suppress, ended.spool_id, "bounce"),
            partial(store.suppress, ended.spool_id, "bounce"),
            partial(store.receive, mail(scene, repeat_since=AT)),
            partial(store.receive, mail(scene, repeat_since=AT)),
        )
        assert (answers[0] == [None]) is broken
        assert answers[4] == answers[5] is not None
        assert [one is None for one in answers[6:]].count(True) == 1
        row = await scene.transmission(put_off)
        assert (row.status, row.try_done) == (TransmissionStatus.PENDING, 0)
        tally = await store.campaign_tally(scene.campaign.id)
        assert tally["disposition:deferred"] == 1
        assert tally["dialled"] == (2 if broken else 3)
        rows = await store.find(SpoolResult, Query())
        assert [one.data for one in rows if one.name == ROW.name] == [ROW.data]
        assert len(await store.find(DoNotContact, Query())) == 1
