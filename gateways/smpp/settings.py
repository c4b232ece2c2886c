"""What a provider of type smpp is, out of its row: host, login and ``settings``, checked."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from engine.errors import InvalidError
from engine.segments import MAX_PARTS
from engine.senders import check_sender
from gateways.settings import converted

Octet = Annotated[int, Meta(ge=0, le=255)]
Seconds = Annotated[float, Meta(gt=0, le=604_800)]


class SmppSettings(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """``Provider.settings`` of type smpp, field by field; what is left out has these values.

    TLS is the provider's ``transport`` tls; starts a second and messages at once (all binds
    together) are its ``calls_per_second`` and ``channels``.
    """

    # --- session
    bind: Literal["transceiver", "pair"] = "transceiver"  # pair: a transmitter and a receiver each
    binds: Annotated[int, Meta(ge=1, le=32)] = 1
    window: Annotated[int, Meta(ge=1, le=10_000)] = 50  # requests unanswered at once, per bind
    messages_per_second: Annotated[float, Meta(ge=0, le=1_000_000)] = 0.0  # per bind; 0 = no limit
    system_type: Annotated[str, Meta(max_length=12)] = ""
    address_range: Annotated[str, Meta(max_length=40)] = ""
    interface_version: Literal[0x33, 0x34] = 0x34
    enquire_link_s: Seconds = 30.0
    response_timeout_s: Seconds = 30.0  # of a submit_sm; its outcome is unknown then
    bind_timeout_s: Seconds = 10.0
    reconnect_min_s: Seconds = 1.0  # doubled, with jitter, up to …
    reconnect_max_s: Seconds = 60.0
    verify_tls: bool = True

    # --- addresses (§5.2.5, §5.2.6); None: by the look of the address
    sender_id: Annotated[str, Meta(max_length=20)] = ""  # where the account has none
    source_ton: Octet | None = None
    source_npi: Octet | None = None
    destination_ton: Octet | None = None
    destination_npi: Octet | None = None
    international: bool = True  # numbers go out without + or 00

    # --- text
    gsm_coding: Octet = 0  # data_coding of the GSM alphabet, "SMSC default"
    latin1_coding: Octet = 3
    ucs2_coding: Octet = 8
    binary_coding: Octet = 4
    default_alphabet: Literal["gsm", "latin1"] = "gsm"  # what the SMSC takes data_coding 0 for
    concatenation: Literal["udh8", "udh16", "sar", "payload"] = "udh8"
    service_type: Annotated[str, Meta(max_length=5)] = ""
    validity_s: Annotated[float, Meta(ge=0, le=5_443_200)] = 0.0  # 0: the SMSC's own, see below
    max_parts: Annotated[int, Meta(ge=1, le=255)] = MAX_PARTS
    price_per_part: Annotated[float, Meta(ge=0, le=1000)] = 0.0

    # --- receipts
    receipts: Literal["all", "failure", "none"] = "all"
    receipt_ids: Literal["learn", "exact", "hex_to_decimal", "decimal_to_hex"] = "learn"
    receipts_without_class: bool = False  # esm_class 0: a handset could forge one
    receipt_wait_s: Seconds = 172_800.0  # 48 h, where neither text nor provider has a validity
    receipt_grace_s: Seconds = 3600.0  # after the validity period
    query: bool = True  # ask for the state (query_sm) before giving up on a receipt

    # --- what nobody saw the answer of
    unknown: Literal["at_most_once", "at_least_once"] = "at_most_once"
    unknown_wait_s: Seconds = 60.0  # for a receipt that tells, before the policy decides
    redelivery_s: Seconds = 900.0  # a message that comes in again within this is the same one

    # --- statuses of this SMSC: number → retry, throttle, queue_full, permanent, sender, rebind
    statuses: dict[
        str, Literal["retry", "throttle", "queue_full", "permanent", "sender", "rebind"]
    ] = {}
    retries: Annotated[int, Meta(ge=0, le=100)] = 5  # of one part, on temporary statuses

    # --- what could not leave: put off, within its validity
    retry_s: Annotated[tuple[Seconds, ...], Meta(max_length=100)] = (
        *(30.0, 60.0, 120.0, 300.0, 600.0),
        *(900.0,) * 95,  # a day together
    )


def parse(settings: dict[str, Any]) -> SmppSettings:
    """The settings; ``InvalidError`` names what is wrong with them."""
    parsed = converted(settings, SmppSettings, "smpp settings")
    try:
        check_sender(parsed.sender_id, "sender_id")
    except InvalidError as error:
        raise InvalidError(f"smpp settings: {error}", field="settings") from error
    for status in parsed.statuses:
        if _number(status) is None:
            raise InvalidError(f"smpp settings: {status[:12]!r} is no status", field="settings")
    return parsed


def status_table(settings: SmppSettings) -> dict[int, str]:
    """``statuses`` by number."""
    return {number: word for key, word in settings.statuses.items() if (number := _number(key))}


_STATUS_BITS = 32


def _number(text: str) -> int | None:
    """A status as operators write it: ``1035`` or ``0x40b``."""
    try:
        number = int(text, 0)
    except ValueError:
        return None
    return number if number > 0 and number.bit_length() <= _STATUS_BITS else None
