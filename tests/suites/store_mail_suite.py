"""E-mail as the store keeps it; see store_suite.py."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from engine.errors import InvalidError
from engine.model import (
    Account,
    Contact,
    DoNotContact,
    Program,
    Service,
    Spool,
    SpoolResult,
    Subscription,
    Template,
    Transmission,
    TransmissionStatus,
)
from engine.results import Blame, Disposition, Reached, Result, ResultRow
from engine.store.arrival import Arrival
from engine.store.base import Begun, Condition, Op, Query, Store
from tests.suites.store_scene import AT, Scene

EMAIL = Service.EMAIL
ADA = "Ada@Example.org"
FILE = {"path": "media/x.attachment", "name": "a.pdf", "type": "application/pdf", "size": 7}
DEFERRED = Result(
    disposition=Disposition.DEFERRED,
    cause="greylisted",
    blame=Blame.NETWORK,
    reached=Reached.NOTHING,
    code="451",
    later_s=(60.0,),
)
ROW = ResultRow("email", "bounce_status", "5.1.1")


def mail(scene: Scene, key: str = "k", **fields: Any) -> Arrival:
    """A mail to the scene's account."""
    given = Arrival(
        at=AT,
        key=key,
        provider_id=0,
        repeat_since=None,
        owner_id=scene.owner.id,
        account_id=scene.account.id,
        program_id=scene.program.id,
        service=EMAIL,
        email=ADA,
        name="Ada Augusta King",
        destination="us@example.net",
        title="in",
        origin="receiveemail",
        message=Template(name="t", subject="Grüße", body="<p>b</p>", attachments=(FILE,)),
        rows=(ResultRow("application", "email_receive", "success"),),
    )
    return msgspec.structs.replace(given, **fields)


class MailStoreSuite:
    """A part of ``StoreSuite``."""

    # --- what comes in ---------------------------------------------------------------------------
    async def test_a_mail_is_kept_whole(self, scene: Scene) -> None:
        store = scene.store
        kept = await store.receive(mail(scene))
        assert kept is not None
        transmission = await store.get(Transmission, kept.transmission_id)
        spool = await store.get(Spool, kept.spool_id)
        template = await store.get(Template, kept.message_id)
        contact = await store.get(Contact, kept.contact_id)
        assert transmission is not None
        assert spool is not None
        assert template is not None
        assert contact is not None
        assert transmission.service == spool.service == EMAIL
        assert (spool.provider_id, spool.destination) == (None, "us@example.net")
        assert (template.subject, template.attachments) == ("Grüße", (FILE,))
        assert template.owner_id == contact.owner_id == scene.owner.id
        assert (contact.email, contact.phone) == (ADA, "")
        assert (contact.first_name, contact.last_name) == ("Ada", "Augusta King")
        rows = {(r.type, r.name): r.data for r in await store.find(SpoolResult, Query())}
        assert rows == {
            ("application", "email_receive"): "success",
            ("contact", "contact_new"): str(kept.contact_id),
            ("message", "template"): str(kept.message_id),
        }

    async def test_who_wrote_before_is_found_whatever_the_case(self, scene: Scene) -> None:
        store, owner_id = scene.store, scene.owner.id
        await store.insert(Contact(email="ada@example.org", owner_id=owner_id + 1))
        known = await store.insert(Contact(email="ADA@example.ORG", owner_id=owner_id))
        await store.insert(Contact(email="ada@example.org", owner_id=owner_id))
        for number, email in enumerate((ADA, "ada@example.org", "ADA@EXAMPLE.ORG")):
            kept = await store.receive(mail(scene, str(number), email=email))
            assert kept is not None
            assert kept.contact_id == known.id

    async def test_a_long_name_is_cut(self, scene: Scene) -> None:
        kept = await scene.store.receive(mail(scene, name=f"  {'a' * 100}\n{'b ' * 100}"))
        assert kept is not None
        contact = await scene.store.get(Contact, kept.contact_id)
        assert contact is not None
        assert contact.first_name == "a" * 64
        assert len(contact.last_name) == 64

    async def test_a_mail_without_its_account_is_not_kept(self, scene: Scene) -> None:
        with pytest.raises(InvalidError) as caught:
            await scene.store.receive(mail(scene, account_id=999))
        assert caught.value.field == "account_id"
        assert await scene.store.find(Template, Query()) == []
        assert await scene.store.find(Contact, Query()) == []

    async def test_whether_a_mail_came_before(self, scene: Scene) -> None:
        store = scene.store
        assert not await store.came(0, "k", AT)
        assert await store.receive(mail(scene, repeat_since=AT)) is not None
        assert await store.receive(mail(scene, repeat_since=AT)) is None
        assert await store.came(0, "k", AT)
        assert await store.came(0, "k", AT - timedelta(days=1))
        assert not await store.came(0, "k", AT + timedelta(seconds=1))
        assert not await store.came(1, "k", AT)
        assert not await store.came(0, "another", AT)

    # --- whose an address is ---------------------------------------------------------------------
    async def test_an_account_by_its_address(self, store: Store) -> None:
        kinds = (("account", True), ("did", False), ("eaddress", True), ("extension", True))
        ids = [
            (await store.insert(Account(email="Us@Example.net", type=kind, active=active))).id
            for kind, active in kinds
        ]
        await store.insert(Account(email="", active=True))
        for address in (
            "us@example.net",
            "US@EXAMPLE.NET",
            "us+tag@example.net",
            "us+a+b@example.net",
        ):
            found = [one.account_id for one in await store.served_address(address, "receiveemail")]
            assert found == [ids[2], ids[0], ids[3]], address
        for nobody in ("", "@", "us", "us@example.org", "+tag@example.net", "s@example.net"):
            assert await store.served_address(nobody, "receiveemail") == [], nobody

    async def test_an_account_with_the_tag_comes_before_the_one_without(self, store: Store) -> None:
        await store.insert(Account(email="us@example.net", active=True))
        tagged = await store.insert(Account(email="us+tag@example.net", active=True))
        [served] = await store.served_address("us+Tag@example.net", "receiveemail")
        assert served.account_id == tagged.id

    async def test_letters_beyond_ascii(self, store: Store) -> None:
        account = await store.insert(Account(email="zoë@Bücher.example", active=True))
        [served] = await store.served_address("Zoë@BÜCHER.example".replace("BÜ", "Bü"), "x")
        assert served.account_id == account.id
        [served] = await store.served_address("zoë@bücher.example", "x")
        assert served.account_id == account.id

    async def test_the_program_of_an_address(self, store: Store) -> None:
        account = await store.insert(Account(email="us@example.net", active=True, owner_id=3))
        [served] = await store.served_address("us@example.net", "receiveemail")
        assert (served.owner_id, served.program_id) == (3, None)
        made = await store.insert(
            Program(name="made", type="receiveemail", data={"account_id": account.id})
        )
        chosen = await store.insert(Program(name="chosen", type="receiveemail"))
        [served] = await store.served_address("us@example.net", "receiveemail")
        assert served.program_id == made.id
        await store.insert(Subscription(account_id=account.id, program_id=chosen.id))
        [served] = await store.served_address("us@example.net", "receiveemail")
        assert served.program_id == chosen.id

    # --- dead addresses --------------------------------------------------------------------------
    async def test_a_spools_address_is_closed_for_its_owner_and_service(self, scene: Scene) -> None:
        store = scene.store
        spool = await self._mail_spool(scene, " Ada@Example.ORG ")
        closed = await store.suppress(spool.id, "bounce 5.1.1: " + "x" * 300)
        assert closed is not None
        assert (closed.address, closed.service) == ("ada@example.org", EMAIL)
        assert closed.owner_id == scene.owner.id
        assert len(closed.reason) == 255
        assert await store.forbidden(scene.owner.id, EMAIL, ["ada@example.org"])
        assert not await store.forbidden(scene.owner.id, Service.SMS, ["ada@example.org"])
        assert not await store.forbidden(scene.owner.id + 1, EMAIL, ["ada@example.org"])
        # Again: nothing changes, not even why.
        assert await store.suppress(spool.id, "another reason") == closed
        assert len(await store.find(DoNotContact, Query())) == 1
        assert await store.suppress(4711, "no such spool") is None

    async def test_a_line_for_another_service_is_widened(self, scene: Scene) -> None:
        store = scene.store
        spool = await self._mail_spool(scene, "a@example.org")
        await store.forbid(
            DoNotContact(
                address="a@example.org", service=Service.SMS, reason="x", owner_id=scene.owner.id
            )
        )
        closed = await store.suppress(spool.id, "bounce")
        assert closed is not None
        assert (closed.service, closed.reason) == (Service.SMS | EMAIL, "bounce")

    async def _mail_spool(self, scene: Scene, destination: str) -> Spool:
        [begun] = await scene.begin(await scene.members(1))
        found = await scene.store.get(Spool, begun.spool_id)
        assert found is not None
        changed = msgspec.structs.replace(found, service=EMAIL, destination=destination)
        return await scene.store.update(changed)

    # --- told after the end ----------------------------------------------------------------------
    async def test_rows_are_added_to_what_has_ended(self, scene: Scene) -> None:
        store = scene.store
        ended, waits = await scene.begin(await scene.members(2))
        await scene.finish(ended)
        before = await self._added_rows(scene, ended)
        spool = await store.get(Spool, ended.spool_id)
        for _ in range(2):
            await store.annotate(ended.spool_id, [ROW, ROW], AT)
            await store.annotate(ended.spool_id, [], AT)
        assert await self._added_rows(scene, ended) == [*before, ROW, ROW]
        assert await store.get(Spool, ended.spool_id) == spool
        mine = [r for r in await store.find(SpoolResult, Query()) if r.name == "bounce_status"]
        assert {(row.owner_id, row.created_at) for row in mine} == {(scene.owner.id, AT)}
        # What goes on is ended by its report, not by an addition to it; nobody is nobody.
        await store.annotate(waits.spool_id, [ROW], AT)
        await store.annotate(4711, [ROW], AT)
        assert await self._added_rows(scene, waits) == []

    async def _added_rows(self, scene: Scene, begun: Begun) -> list[ResultRow]:
        mine = Condition("spool_id", Op.EQ, begun.spool_id)
        rows = await scene.store.find(SpoolResult, Query(conditions=(mine,)))
        return [ResultRow(row.type, row.name, row.data) for row in rows]

    # --- put off ---------------------------------------------------------------------------------
    async def test_a_try_that_was_put_off_is_not_counted(self, scene: Scene) -> None:
        [begun] = await scene.begin(await scene.members(1))
        await scene.finish(begun, DEFERRED, TransmissionStatus.PENDING, AT)
        row = await scene.transmission(begun)
        assert (row.status, row.try_done, row.due_at) == (TransmissionStatus.PENDING, 0, AT)
        spool = await scene.store.get(Spool, begun.spool_id)
        assert spool is not None
        assert (spool.status.value, spool.disposition) == ("failed", "deferred")
        second = await scene.again(begun.transmission_id)
        assert second is not None
        assert second.try_done == 1
        tally = await scene.store.campaign_tally(scene.campaign.id)
        assert (tally["dialled"], tally["retries"]) == (2, 0)
        assert tally["disposition:deferred"] == 1
