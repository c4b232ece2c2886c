"""The store's plain nouns, groups and deletes; see store_suite.py."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from engine.errors import ConflictError, InvalidError, NotFoundError
from engine.model import (
    Account,
    Campaign,
    CampaignStatus,
    Contact,
    Document,
    DoNotContact,
    Entity,
    Group,
    Permission,
    Program,
    Provider,
    Recording,
    RevokedToken,
    Role,
    Service,
    Spool,
    SpoolResult,
    SpoolStatus,
    Subscription,
    Task,
    TaskStatus,
    Template,
    Text,
    Transmission,
    TransmissionStatus,
    User,
)
from engine.store.base import Condition, ContactRow, Op, Query, Store
from tests.suites.store_scene import AT, Scene, set_scene

ODD = 'Zoë "O\'Brien"; DROP TABLE contact; -- \n\t😀 100% _\\'
LATER = AT + timedelta(days=1, microseconds=1)


def _where(field: str, op: Op, value: object) -> Query:
    return Query(conditions=(Condition(field, op, value),))


async def _every_noun(store: Store) -> list[Entity]:
    """One of each, no field at its default."""
    scene = await set_scene(store)
    begun = (await scene.begin((await scene.members(1))[:1]))[0]
    common: dict[str, Any] = {"owner_id": scene.owner.id, "created_at": AT, "updated_at": LATER}
    texts: dict[str, Any] = dict.fromkeys(("first_name", "last_name", "phone", "address"), ODD)
    secrets: dict[str, Any] = {"passwd": "p", "passwd_pin": "1"}
    return [
        User(username="bob", email="b@x", company=ODD, active=False,
             roles=("admin", "user"), permissions=("contact_list",), country_id=92,
             language_id="ur", timezone_id=18_000, tokens_from=AT, **texts, **common),
        Role(name="keeper", description=ODD, permissions=("contact", "group_list"), **common),
        Permission(name="contact_juggle", description=ODD, **common),
        RevokedToken(jti="j", expires_at=LATER, **common),
        Account(type="extension", username="1001", **secrets, email="e", **texts,
                settings={"crm": ODD, "n": [1, 2.5, None, {"deep": True}]},
                timezone="Europe/Berlin", active=True, **common),
        Subscription(account_id=scene.account.id, program_id=scene.program.id, **common),
        Contact(email="e", custom1="1", custom2="2", custom3="3", description=ODD, **texts,
                **common),
        Group(name=ODD, description="d", **common),
        Recording(name=ODD, description="d", type="mp3", media_path="a/b.wav", original_path="c",
                  original_type="audio/mpeg", length_s=1.25, **common),
        Document(name=ODD, description="d", type="tif", quality="fine", media_path="a/b.pdf",
                 original_path="c", original_type="tif", pages=3, size_x=595.2, size_y=841.8,
                 resolution_x=300, resolution_y=300, **common),
        Template(name=ODD, description="d", type="txt", subject="s", body="<p>b</p>",
                 body_alt="b", attachments=({"path": "a", "name": ODD, "size": 3},), **common),
        Text(name=ODD, description="d", type="unicode", data=ODD, **common),
        Program(name="p", type="voicemessage", data={"recording_id": 7}, message_id=7,
                parent_id=scene.program.id, **common),
        Provider(name=ODD, type="loopback", service=Service.VOICE | Service.SMS, host="h",
                 port=5070, transport="tls", username="u", dialstring="{number}",
                 prefix="0|44", settings={"a": 1}, description="d", register=True, weight=3,
                 active=False, node_id=2, calls_per_second=12.5, channels=9, **common),
        Campaign(program_id=scene.program.id, group_id=scene.group.id, contact_total=1,
                 account_id=scene.account.id, calls_per_minute=0.5, try_allowed=4,
                 status=CampaignStatus.PAUSED, source="api", cursor=3, last_run=AT,
                 retry_delays={"busy": 1.5}, **common),
        Transmission(title=ODD, service=Service.FAX, program_id=scene.program.id,
                     account_id=scene.account.id, contact_id=(await scene.contact()).id,
                     campaign_id=scene.campaign.id, origin="o", status=TransmissionStatus.FAILED,
                     response="busy", try_allowed=5, try_done=2, due_at=AT, last_run=LATER,
                     retry_delays={"failed": 9.0}, **common),
        Spool(transmission_id=begun.transmission_id, campaign_id=scene.campaign.id,
              service=Service.FAX, account_id=scene.account.id, provider_id=scene.provider.id,
              node_id=3, destination=ODD, status=SpoolStatus.FAILED, response="busy",
              disposition="busy", code="486", spooled_at=AT, started_at=AT, connected_at=AT,
              ended_at=LATER, amount_s=2.5, **common),
        SpoolResult(spool_id=begun.spool_id, type="dtmf", name="key", data=ODD, **common),
        Task(type="campaign", action="start", target_id=scene.campaign.id,
             account_id=scene.account.id, status=TaskStatus.EXPIRED, year="2027", month="1-6",
             day="*/2", weekday="1,7", hour="9", minute="30", timezone="Asia/Karachi",
             recurring=True, weight=3, due_at=AT, expires_at=LATER, last_run=AT, note=ODD,
             **common),
        DoNotContact(address=ODD, service=Service.SMS, reason=ODD, **common),
    ]  # fmt: skip


class NounSuite:
    """Insert, update, delete, get, find and count of every noun."""

    async def test_every_noun_comes_back_as_it_was(self, store: Store) -> None:
        for entity in await _every_noun(store):
            stored = await store.insert(entity)
            assert stored == msgspec.structs.replace(entity, id=stored.id)
            assert stored.id > 0
            assert await store.get(type(entity), stored.id) == stored

    async def test_every_noun_can_be_updated(self, store: Store) -> None:
        for entity in await _every_noun(store):
            stored = await store.insert(entity)
            assert await store.update(stored) == stored
            with pytest.raises(NotFoundError):
                await store.update(msgspec.structs.replace(stored, id=stored.id + 1000))

    async def test_times_not_given_are_now_and_come_back_in_utc(self, store: Store) -> None:
        before = datetime.now(UTC)
        stored = await store.insert(Group(name="g"))
        assert before <= stored.created_at == stored.updated_at <= datetime.now(UTC)
        abroad = AT.astimezone(timezone(timedelta(hours=5)))
        late = await store.insert(Group(name="g", created_at=abroad))
        read = await store.get(Group, late.id)
        assert read is not None
        assert read.created_at == AT
        assert read.created_at.tzinfo is UTC

    async def test_files_that_no_row_names(self, store: Store) -> None:
        await store.insert(Recording(name="r", media_path="media/1", original_path="media/2"))
        await store.insert(Document(name="d", media_path="media/3", original_path="media/4"))
        await store.insert(Recording(name="none"))
        for paths in (("media/5", "media/6"), (), (f"media/{ODD}",)):
            await store.insert(Template(name="t", attachments=tuple({"path": p} for p in paths)))
        given = [f"media/{number}" for number in range(10)]
        assert sorted(await store.unnamed([*given, f"media/{ODD}"])) == [given[0], *given[7:]]
        assert await store.unnamed([]) == []

    async def test_update_leaves_what_the_hot_path_keeps(self, scene: Scene) -> None:
        store = scene.store
        [begun] = await scene.begin(await scene.members(1))
        await scene.finish(begun)
        group = await store.update(
            msgspec.structs.replace(scene.group, name="new", contact_total=99)
        )
        assert (group.name, group.contact_total) == ("new", 1)
        stale = msgspec.structs.replace(scene.campaign, source="edited", cursor=0, contact_done=7)
        campaign = await store.update(stale)
        assert campaign.source == "edited"
        assert campaign.cursor > 0
        assert (campaign.contact_total, campaign.contact_done) == (1, 1)
        before = await scene.transmission(begun)
        stale_one = msgspec.structs.replace(
            before, title="edited", status=TransmissionStatus.PENDING, try_done=0, due_at=AT
        )
        assert await store.update(stale_one) == msgspec.structs.replace(before, title="edited")

    async def test_update_keeps_identity(self, store: Store) -> None:
        stored = await store.insert(Contact(phone="1"))
        other = Contact(id=stored.id, phone="2")
        updated = await store.update(other)
        assert (updated.uid, updated.created_at) == (stored.uid, stored.created_at)
        assert updated.phone == "2"

    async def test_get_of_nothing(self, store: Store) -> None:
        assert await store.get(Contact, 4711) is None
        with pytest.raises(InvalidError):
            await store.get(Contact, 2**70)

    async def test_unique_keys_clash(self, store: Store) -> None:
        await store.insert(User(username="ann", email="a@x"))
        bob = await store.insert(User(username="bob"))
        for clash in (User(username="ann"), User(username="eve", email="a@x")):
            with pytest.raises(ConflictError):
                await store.insert(clash)
        with pytest.raises(ConflictError):
            await store.update(msgspec.structs.replace(bob, username="ann"))
        await store.insert(User(username="eve"))  # no e-mail clashes with no e-mail
        assert await store.count(User, Query()) == 3

    async def test_rows_are_saved_all_or_none(self, store: Store) -> None:
        saved = await store.save_all([User(username="ann"), Account(username="ann")], owned=True)
        ann, account = await store.find(User, Query()), await store.find(Account, Query())
        assert [*ann, *account] == saved
        assert account[0].owner_id == ann[0].id
        edited = msgspec.structs.replace(ann[0], company="x")
        with pytest.raises(ConflictError):
            await store.save_all([edited, User(username="bob"), Account(username="ann")])
        assert await store.find(User, Query()) == ann
        with pytest.raises(NotFoundError):
            await store.save_all([User(username="bob"), User(id=4711, username="eve")])
        assert await store.find(User, Query()) == ann
        [changed, bob] = await store.save_all([edited, User(username="bob")])
        assert await store.find(User, Query()) == [changed, bob]
        assert await store.save_all([]) == []

    async def test_reference_to_nothing_is_named(self, scene: Scene) -> None:
        with pytest.raises(InvalidError) as caught:
            await scene.store.insert(Campaign(program_id=4711, group_id=scene.group.id))
        assert caught.value.field == "program_id"
        with pytest.raises(InvalidError) as caught:
            await scene.store.update(msgspec.structs.replace(scene.campaign, account_id=4711))
        assert caught.value.field == "account_id"

    async def test_unstorable_values_are_refused(self, store: Store) -> None:
        for bad in (Contact(phone="\ud800"), Contact(owner_id=2**64)):
            with pytest.raises(InvalidError):
                await store.insert(bad)
        with pytest.raises(InvalidError):
            await store.insert(Account(settings={"x": object()}))
        assert await store.count(Contact, Query()) == 0

    # --- find ------------------------------------------------------------------------------------

    async def test_find_by_every_operator(self, store: Store) -> None:
        phones = ["100", "2100", "2200", "a_c", "aBc"]
        rows = [
            await store.insert(Contact(phone=phone, custom1=str(len(phone)))) for phone in phones
        ]
        cases = [
            (_where("phone", Op.EQ, "100"), ["100"]),
            (_where("phone", Op.IN, ["100", "2200", "x"]), ["100", "2200"]),
            (_where("phone", Op.IN, []), []),
            (_where("phone", Op.ENDS_WITH, "100"), ["100", "2100"]),
            (_where("phone", Op.CONTAINS, "ABC"), ["aBc"]),
            (_where("phone", Op.CONTAINS, "_"), ["a_c"]),
            (_where("phone", Op.CONTAINS, "%"), []),
            (_where("id", Op.GE, rows[3].id), ["a_c", "aBc"]),
            (_where("id", Op.LE, rows[1].id), ["100", "2100"]),
            (_where("owner_id", Op.EQ, None), phones),
            (_where("uid", Op.EQ, rows[2].uid), ["2200"]),
            (_where("created_at", Op.GE, rows[4].created_at), ["aBc"]),
        ]
        for query, expected in cases:
            assert [row.phone for row in await store.find(Contact, query)] == expected, query
            assert await store.count(Contact, query) == len(expected)

    async def test_find_by_bits_and_enums(self, store: Store) -> None:
        for name, service in (("v", Service.VOICE), ("vf", Service.VOICE | Service.FAX)):
            await store.insert(Provider(name=name, service=service, active=name == "v"))
        names = [
            p.name for p in await store.find(Provider, _where("service", Op.HAS_BITS, Service.FAX))
        ]
        assert names == ["vf"]
        assert await store.count(Provider, _where("active", Op.EQ, True)) == 1

    async def test_order_and_pages(self, store: Store) -> None:
        for phone in ("b", "a", "b", "c"):
            await store.insert(Contact(phone=phone))
        ids = [row.id for row in await store.find(Contact, Query())]
        assert ids == sorted(ids)
        for order, expected in (
            ("phone", [ids[1], ids[0], ids[2], ids[3]]),
            ("-phone", [ids[3], ids[2], ids[0], ids[1]]),
            ("-id", ids[::-1]),
        ):
            found = [row.id for row in await store.find(Contact, Query(order=order))]
            assert found == expected
            paged = [
                row.id
                for offset in range(4)
                for row in await store.find(Contact, Query(order=order, limit=1, offset=offset))
            ]
            assert paged == expected
        assert await store.find(Contact, Query(limit=0)) == []
        assert await store.count(Contact, Query(limit=1, offset=1)) == 4

    async def test_unknown_fields_are_refused(self, store: Store) -> None:
        for query in (_where("nonsense", Op.EQ, 1), Query(order="1; DROP TABLE usr")):
            with pytest.raises(InvalidError):
                await store.find(Contact, query)

    async def test_joined_fields(self, scene: Scene) -> None:
        store = scene.store
        ann = await store.insert(Contact(phone="777", email="ann@x"))
        one = await scene.alone(ann)
        two = await store.insert(
            Transmission(program_id=scene.program.id, contact_id=(await scene.contact()).id,
                         account_id=scene.account.id)
        )  # fmt: skip
        for field, op, value, expected in (
            ("contact.phone", Op.ENDS_WITH, "77", [one.id]),
            ("contact.email", Op.EQ, "ann@x", [one.id]),
            ("account.phone", Op.CONTAINS, "123", [two.id]),
            ("account.email", Op.EQ, "", [two.id]),
        ):
            found = await store.find(Transmission, _where(field, op, value))
            assert [row.id for row in found] == expected, field
        campaigns = await store.find(Campaign, _where("program.type", Op.EQ, "voicemessage"))
        assert [row.id for row in campaigns] == [scene.campaign.id]
        assert await store.count(Campaign, _where("program.type", Op.EQ, "fax")) == 0

    # --- groups ----------------------------------------------------------------------------------

    async def test_membership(self, scene: Scene) -> None:
        store, group = scene.store, scene.group
        other = await store.insert(Group(name="other"))
        contact = await scene.contact()
        assert await store.link(contact.id, group.id)
        assert not await store.link(contact.id, group.id)
        assert await store.link(contact.id, other.id)
        in_any = _where("group_id", Op.IN, [group.id, other.id])
        for query in (_where("group_id", Op.EQ, group.id), in_any):
            assert await store.find(Contact, query) == [contact]
            assert await store.count(Contact, query) == 1
        assert (await scene.progress()).contact_total == 1
        assert await store.unlink(contact.id, group.id)
        assert not await store.unlink(contact.id, group.id)
        assert (await scene.progress()).contact_total == 0
        for contact_id, group_id in ((4711, group.id), (contact.id, 4711)):
            with pytest.raises(NotFoundError):
                await store.link(contact_id, group_id)

    async def test_import_and_export(self, scene: Scene) -> None:
        store = scene.store
        rows = [ContactRow(phone=str(n), first_name=ODD, custom3="c") for n in range(700)]
        assert await store.import_contacts(scene.group.id, scene.owner.id, rows, AT) == 700
        assert await store.import_contacts(scene.group.id, None, [], AT) == 0
        seen, after = [], 0
        while page := await store.export_contacts(scene.group.id, after, 300):
            assert [one.link_id for one in page] == sorted(one.link_id for one in page)
            after = page[-1].link_id
            seen += [one.contact for one in page]
        assert [one.phone for one in seen] == [row.phone for row in rows]
        assert len({one.uid for one in seen}) == 700
        first = seen[0]
        assert (first.first_name, first.custom3, first.owner_id) == (ODD, "c", scene.owner.id)
        assert first.created_at == AT
        assert (await scene.progress()).contact_total == 700
        page_2 = Query(
            conditions=(Condition("group_id", Op.EQ, scene.group.id),),
            order="-id", limit=2, offset=1,
        )  # fmt: skip
        assert [one.phone for one in await store.find(Contact, page_2)] == ["698", "697"]

    async def test_import_stores_no_part_of_a_text(self, scene: Scene) -> None:
        odd = ["\\u0000", "1\x002", '"\\', "\u2028\x7f\t\n", "\U0001f600"]
        rows = [ContactRow(phone=text) for text in odd]
        assert await scene.store.import_contacts(scene.group.id, None, rows, AT) == len(odd)
        with pytest.raises(InvalidError):
            await scene.store.import_contacts(
                scene.group.id, None, [ContactRow(phone="\ud800")], AT
            )
        stored = await scene.store.find(Contact, Query())
        assert [contact.phone for contact in stored] == odd
        assert {contact.uid.version for contact in stored} == {4}

    async def test_import_into_nothing_keeps_nothing(self, store: Store) -> None:
        with pytest.raises(NotFoundError):
            await store.import_contacts(4711, None, [ContactRow(phone="1")], AT)
        assert await store.count(Contact, Query()) == 0

    # --- deletes ---------------------------------------------------------------------------------

    async def test_delete_of_nothing(self, store: Store) -> None:
        for kind in (User, Account, Contact, Group, Recording, Program, Provider, Campaign,
                     Transmission, Spool, SpoolResult):  # fmt: skip
            assert not await store.delete(kind, 4711)

    async def test_ids_are_never_given_twice(self, store: Store) -> None:
        first = await store.insert(Contact(phone="1"))
        assert await store.delete(Contact, first.id)
        assert (await store.insert(Contact(phone="2"))).id > first.id

    async def test_a_contact_goes_when_nothing_to_it_is_open(self, scene: Scene) -> None:
        store = scene.store
        [member] = await scene.members(1)
        [begun] = await scene.begin([member])
        with pytest.raises(ConflictError, match="not over"):
            await store.delete(Contact, member.contact.id)
        await scene.finish(begun)
        assert await store.delete(Contact, member.contact.id)
        kept = await store.get(Transmission, begun.transmission_id)
        assert kept is not None
        assert (kept.contact_id, kept.status) == (None, TransmissionStatus.COMPLETED)

    async def test_contact_and_group_take_their_links_along(self, scene: Scene) -> None:
        store = scene.store
        members = await scene.members(3)
        assert await store.delete(Contact, members[0].contact.id)
        assert (await scene.progress()).contact_total == 2
        group = await store.insert(Group(name="big"))
        rows = [ContactRow(phone=str(n)) for n in range(4500)]
        await store.import_contacts(group.id, None, rows, AT)
        assert await store.delete(Group, group.id)
        assert await store.export_contacts(group.id, 0, 10) == []
        assert await store.count(Contact, Query()) == 4502

    async def test_what_is_needed_stays(self, scene: Scene) -> None:
        store = scene.store
        members = await scene.members(2)
        [begun] = await scene.begin(members[:1])
        for kind, entity_id in (
            (Program, scene.program.id),
            (Group, scene.group.id),
            (Account, scene.account.id),
            (Contact, members[0].contact.id),
            (Transmission, begun.transmission_id),
            (Spool, begun.spool_id),
        ):
            with pytest.raises(ConflictError):
                await store.delete(kind, entity_id)
            assert await store.get(kind, entity_id) is not None
        assert (await scene.progress()).contact_total == 2

    async def test_running_campaign_stays(self, scene: Scene) -> None:
        await scene.store.set_campaign_status(scene.campaign.id, CampaignStatus.RUNNING, AT)
        with pytest.raises(ConflictError):
            await scene.store.delete(Campaign, scene.campaign.id)

    async def test_provider_and_account_and_campaign_are_detached(self, scene: Scene) -> None:
        store = scene.store
        begun = await scene.begin(await scene.members(2500))
        await scene.finish(begun[0])
        assert await store.delete(Provider, scene.provider.id)
        assert await store.delete(Campaign, scene.campaign.id)
        assert await store.delete(Account, scene.account.id)
        for one in (begun[0], begun[-1]):
            spool = await store.get(Spool, one.spool_id)
            transmission = await scene.transmission(one)
            assert spool is not None
            assert (spool.provider_id, spool.campaign_id, spool.account_id) == (None, None, None)
            assert (transmission.campaign_id, transmission.account_id) == (None, None)
        await scene.finish(begun[1])
        assert (await scene.transmission(begun[1])).status is TransmissionStatus.COMPLETED

    async def test_transmission_takes_its_spools_along(self, scene: Scene) -> None:
        [begun] = await scene.begin(await scene.members(1))
        await scene.finish(begun)
        assert await scene.store.count(SpoolResult, Query()) == 2
        assert await scene.store.delete(Transmission, begun.transmission_id)
        for kind in (Transmission, Spool, SpoolResult):
            assert await scene.store.count(kind, Query()) == 0
        tally = await scene.store.campaign_tally(scene.campaign.id)
        assert not any(tally.values())
