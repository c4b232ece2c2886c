"""What a campaign would do if it were started now, without doing any of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import msgspec
import trio

from engine import do_not_contact, screening
from engine.config import Config
from engine.errors import InvalidError, NotFoundError, NotReadyError
from engine.model import (
    Account,
    Campaign,
    CampaignStatus,
    Contact,
    Group,
    Program,
    Service,
    Text,
    TransmissionStatus,
)
from engine.previews import wording
from engine.programs import PROGRAMS
from engine.quotes import PRICE_PLACES, carriers, dearest, quote, tariffs, too_long
from engine.senders import check_sender
from engine.store.base import Address, Store
from engine.tokens import compiled
from engine.unsubscribes import Links
from engine.work import Work, prepare

CHUNK = 500
"""Contacts looked at before others have their turn: less than a millisecond of the event loop."""

BUDGET_S = 20.0
"""What is not counted by then is not; who asked gives up waiting soon after."""


class CampaignPreview(msgspec.Struct, frozen=True, kw_only=True):
    """What the first contact would get: ``words`` as ``engine.previews`` finds them."""

    contact_id: int
    destination: str
    words: dict[str, str]


class SmsFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What an SMS campaign comes to: ``messages`` of ``parts_per_message`` each.

    The size is that of the previewed contact's message, the price that of the dearest provider.
    ``estimated``: others may be of another size, or cost less, or were not counted.
    """

    parts_per_message: int
    messages: int
    parts: int
    price: float
    currency: str
    estimated: bool


class CampaignCheck(msgspec.Struct, frozen=True, kw_only=True):
    """A dry run: counts of contacts, and what stands in the way.

    ``dialable`` are new and would be dialled; ``retries`` were tried and would be again;
    ``taken`` are the campaign's transmissions by status; ``skipped`` those it would refuse, by
    cause. ``duration_s`` is what ``dialable`` and ``retries`` take at the campaign's pace. Where
    not ``complete`` there are more contacts than could be counted in ``BUDGET_S``. ``preview`` is
    of the first that is dialable. ``sms`` is there where the program sends a text.
    """

    contacts: int
    dialable: int
    retries: int
    taken: dict[str, int]
    skipped: dict[str, int]
    problems: tuple[str, ...]
    duration_s: float
    complete: bool
    preview: CampaignPreview | None
    sms: SmsFigures | None = None


async def check_campaign(
    store: Store,
    config: Config,
    campaign: Campaign,
    carries: Callable[[Service], bool],
    *,
    links: Links | None = None,
    budget_s: float = BUDGET_S,
) -> CampaignCheck:
    """Look, count, write nothing. ``carries`` says whether a provider carries a service."""
    group = await store.get(Group, campaign.group_id)
    program = await store.get(Program, campaign.program_id)
    kind = PROGRAMS.get(program.type) if program else None
    service = kind.service if kind else Service.VOICE
    count = _Count(service, config.dial.allowed_prefixes)
    complete = await _look_through(store, campaign, service, count, budget_s)
    tally = await store.campaign_tally(campaign.id)
    retries = tally[TransmissionStatus.PENDING.value]
    preview = await _preview(store, config, campaign, program, count, links=links)
    problems = await _problems(
        store, config, campaign, preview, links=links, provided=carries(service)
    )
    return CampaignCheck(
        contacts=group.contact_total if group else 0,
        dialable=count.dialable,
        retries=retries,
        taken={status.value: tally[status.value] for status in TransmissionStatus},
        skipped=dict(count.skipped),
        problems=tuple(problems),
        duration_s=(count.dialable + retries) * 60 / campaign.calls_per_minute,
        complete=complete,
        preview=preview,
        sms=await _sms(
            store, config, program, preview, count.dialable + retries, complete=complete
        ),
    )


class _Count:
    """Contacts screened so far."""

    def __init__(self, service: Service, allowed_prefixes: tuple[str, ...]) -> None:
        self._service = service
        self._allowed_prefixes = allowed_prefixes
        self.dialable = 0
        self.skipped: Counter[str] = Counter()
        self.first: tuple[int, str] | None = None  # contact, destination

    def screen(self, address: Address) -> str:
        """Where it would be sent to; "", and counted, where it would not be sent at all."""
        destination, cause = screening.screen_address(
            address.phone, address.email, self._service, self._allowed_prefixes
        )
        if cause:
            self.skipped[cause] += 1
            return ""
        return destination

    def add(self, contact_id: int, destination: str) -> None:
        self.dialable += 1
        if self.first is None:
            self.first = (contact_id, destination)


async def _look_through(
    store: Store, campaign: Campaign, service: Service, count: _Count, budget_s: float
) -> bool:
    """Count whom the campaign has not taken, from where it stands; False where time ran out."""
    after = campaign.cursor
    with trio.move_on_after(budget_s):
        while True:
            found = await store.untried_addresses(campaign.id, campaign.group_id, after, CHUNK)
            screened = {one: where for one in found if (where := count.screen(one))}
            numbers = list(screened.values())
            closed = await do_not_contact.among(store, campaign.owner_id, service, numbers)
            for one, where in screened.items():
                if where in closed:
                    count.skipped[do_not_contact.CAUSE] += 1
                else:
                    count.add(one.contact_id, where)
            if len(found) < CHUNK:
                return True
            after = found[-1].link_id
            await trio.lowlevel.checkpoint()
    return False


async def _preview(
    store: Store,
    config: Config,
    campaign: Campaign,
    program: Program | None,
    count: _Count,
    *,
    links: Links | None,
) -> CampaignPreview | None:
    if program is None or count.first is None:
        return None
    contact_id, destination = count.first
    contact = await store.get(Contact, contact_id)
    if contact is None:  # deleted a moment ago
        return None
    account_id = campaign.account_id
    account = None if account_id is None else await store.get(Account, account_id)
    texts = await wording(store, config, program)
    return CampaignPreview(
        contact_id=contact_id,
        destination=destination,
        words=texts.preview(contact, account, links, campaign.owner_id),
    )


async def _sms(
    store: Store,
    config: Config,
    program: Program | None,
    preview: CampaignPreview | None,
    messages: int,
    *,
    complete: bool,
) -> SmsFigures | None:
    text = await _text_of(store, program)
    if text is None:
        return None
    words = preview.words.get("text", "") if preview else text.data
    choice = await tariffs(store)
    found = dearest(words, text, choice)
    return SmsFigures(
        parts_per_message=found.size.parts,
        messages=messages,
        parts=messages * found.size.parts,
        price=round(messages * found.price, PRICE_PLACES),
        currency=config.sms.currency,
        estimated=not complete
        or compiled(text.data).varies
        or len({quote(words, text, tariff).price for tariff in choice}) > 1,
    )


async def _text_of(store: Store, program: Program | None) -> Text | None:
    text_id = program.data.get("text_id") if program else None
    return None if text_id is None else await store.get(Text, text_id)


async def _problems(
    store: Store,
    config: Config,
    campaign: Campaign,
    preview: CampaignPreview | None,
    *,
    links: Links | None,
    provided: bool,
) -> list[str]:
    """What a start would be refused for, in its own words, and what could never be composed."""
    problems = []
    if campaign.status is CampaignStatus.RUNNING:
        problems.append("Campaign is running")
    try:
        work = await prepare(store, config, campaign.program_id, campaign.account_id, links=links)
    except (NotFoundError, NotReadyError) as error:
        problems.append(str(error))
    else:
        problems += await _obstacles(store, work, preview)
    if not provided:
        problems.append("No provider available")
    return problems


async def _obstacles(store: Store, work: Work, preview: CampaignPreview | None) -> list[str]:
    """Why a provider could send none of the messages, though it is asked to."""
    match work.service:
        case Service.SMS:
            found = (_no_sender_of_sms(work), await _too_long(store, work, preview))
        case Service.EMAIL:
            found = (await _no_sender_of_mail(store, work), "")
        case _:
            found = ("", "")
    return [problem for problem in found if problem]


def _no_sender_of_sms(work: Work) -> str:
    try:
        check_sender(work.caller_id, "sender_id")
    except InvalidError as error:
        return f"No SMS can come from the account: {error}"
    return ""


async def _too_long(store: Store, work: Work, preview: CampaignPreview | None) -> str:
    text = await _text_of(store, await store.get(Program, work.program_id))
    if text is None:
        return ""
    words = preview.words.get("text", "") if preview else text.data
    found = too_long(words, text, await tariffs(store))
    if found is None:
        return ""
    return f"Text of {found.size.parts} parts, a provider takes {found.tariff.max_parts}"


async def _no_sender_of_mail(store: Store, work: Work) -> str:
    if work.caller_id:
        return ""
    for provider in await carriers(store, work.service):
        if provider.type == "smtp" and not provider.settings.get("from_address"):
            return "No sender: neither account nor provider has an e-mail address"
    return ""
