"""What the store's tests act on: a campaign with its contacts, and short ways to move it along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from engine.model import (
    Account,
    Campaign,
    Contact,
    Group,
    Program,
    Provider,
    Service,
    Transmission,
    TransmissionStatus,
    User,
)
from engine.results import Blame, Disposition, Reached, Result, ResultRow
from engine.store.base import Begun, Candidate, ContactRow, Intent, Outcome, Store

AT = datetime(2026, 3, 1, 12, 0, 0, 123_456, tzinfo=UTC)
ANSWERED = Result(
    disposition=Disposition.ANSWERED,
    cause="answered",
    blame=Blame.NOBODY,
    reached=Reached.PERSON,
    code="200",
    rows=(ResultRow("dtmf", "key", "5"), ResultRow("info", "played", "1")),
    started_at=AT + timedelta(seconds=1),
    connected_at=AT + timedelta(seconds=4),
    ended_at=AT + timedelta(seconds=9),
    talk_s=5.0,
)
BUSY = Result(
    disposition=Disposition.BUSY,
    cause="busy",
    blame=Blame.CALLEE,
    reached=Reached.NETWORK,
    code="486",
)


@dataclass(frozen=True)
class Scene:
    """One campaign over one group, and what it needs."""

    store: Store
    owner: User
    group: Group
    program: Program
    provider: Provider
    account: Account
    campaign: Campaign

    async def members(self, count: int) -> list[Candidate]:
        """Import contacts; all members of the group."""
        rows = [ContactRow(phone=f"1555{number:07}") for number in range(count)]
        await self.store.import_contacts(self.group.id, self.owner.id, rows, AT)
        return await self.store.export_contacts(self.group.id, 0, 1_000_000)

    async def contact(self) -> Contact:
        """A contact in no group."""
        return await self.store.insert(Contact(phone="15550009999", owner_id=self.owner.id))

    async def alone(self, contact: Contact | None = None) -> Transmission:
        """A transmission of no campaign."""
        contact = contact or await self.contact()
        return await self.store.insert(
            Transmission(program_id=self.program.id, contact_id=contact.id, owner_id=self.owner.id)
        )

    def intent(self, candidate: Candidate, *, counts_try: bool = True) -> Intent:
        """The intent to dial a candidate: a new contact of the campaign, or a transmission."""
        transmission = candidate.transmission
        return Intent(
            uid=uuid4(),
            at=AT,
            service=Service.VOICE,
            destination=candidate.contact.phone,
            provider_id=self.provider.id,
            account_id=self.account.id,
            contact_id=candidate.contact.id,
            program_id=self.program.id,
            owner_id=self.owner.id,
            transmission_id=transmission.id if transmission else 0,
            campaign_id=transmission.campaign_id if transmission else self.campaign.id,
            link_id=candidate.link_id,
            title="spring",
            origin="campaign",
            try_allowed=3,
            counts_try=counts_try,
        )

    async def begin(self, candidates: Sequence[Candidate]) -> list[Begun]:
        """Begin spools of candidates that must all be free."""
        answers = await self.store.begin_spools([self.intent(one) for one in candidates])
        begun = [answer for answer in answers if answer is not None]
        assert len(begun) == len(candidates)
        return begun

    async def again(self, transmission_id: int, *, counts_try: bool = True) -> Begun | None:
        """Begin another spool of a transmission."""
        transmission = await self.store.get(Transmission, transmission_id)
        assert transmission is not None
        contact = await self.store.get(Contact, transmission.contact_id or 0)
        assert contact is not None
        candidate = Candidate(contact=contact, transmission=transmission)
        [begun] = await self.store.begin_spools([self.intent(candidate, counts_try=counts_try)])
        return begun

    async def finish(
        self,
        begun: Begun,
        result: Result = ANSWERED,
        status: TransmissionStatus | None = None,
        due_at: datetime | None = None,
        at: datetime = AT,
    ) -> None:
        """End a spool: by default completed where it succeeded, else failed."""
        if status is None:
            succeeded = result.succeeded
            status = TransmissionStatus.COMPLETED if succeeded else TransmissionStatus.FAILED
        await self.store.finish_spool(
            Outcome(
                spool_id=begun.spool_id,
                transmission_id=begun.transmission_id,
                campaign_id=self.campaign.id,
                result=result,
                transmission_status=status,
                due_at=due_at,
                at=at,
            )
        )

    async def transmission(self, begun: Begun) -> Transmission:
        """The transmission of a spool, as stored."""
        row = await self.store.get(Transmission, begun.transmission_id)
        assert row is not None
        return row

    async def progress(self) -> Campaign:
        """The campaign as stored."""
        row = await self.store.get(Campaign, self.campaign.id)
        assert row is not None
        return row


async def set_scene(store: Store) -> Scene:
    """Insert a campaign and what it needs."""
    owner = await store.insert(User(username=f"ann-{uuid4()}"))
    group = await store.insert(Group(name="people", owner_id=owner.id))
    program = await store.insert(Program(name="hello", type="voicemessage", owner_id=owner.id))
    provider = await store.insert(Provider(name="trunk", host="127.0.0.1"))
    account = await store.insert(Account(phone="15551230000", owner_id=owner.id))
    campaign = await store.insert(
        Campaign(
            program_id=program.id,
            group_id=group.id,
            account_id=account.id,
            owner_id=owner.id,
            calls_per_minute=600.0,
            try_allowed=3,
        )
    )
    return Scene(store, owner, group, program, provider, account, campaign)
