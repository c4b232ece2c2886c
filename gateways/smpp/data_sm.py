"""The body of a data_sm (SMPP 3.4 §4.7.1) as a message, read as strictly as ``codec`` reads. Pure.

Some SMSCs hand over receipts and messages by it instead of deliver_sm. It has fewer mandatory
parameters, and no short_message: its text is in message_payload, or it has none.
"""

from __future__ import annotations

import re

from gateways.smpp import codec
from gateways.smpp.pdu import Address, ShortMessage

MAX_ADDRESS = 64
"""§4.7.1: longer than anywhere else, there may be names of hosts in it."""

_MANDATORY = re.compile(
    b"".join(
        (
            codec.C_STRING % 5, rb"(..)", codec.C_STRING % MAX_ADDRESS,
            rb"(..)", codec.C_STRING % MAX_ADDRESS, rb"(...)",
        )
    ),
    re.DOTALL,
)  # fmt: skip
_FIELDS: codec.Fields = (
    ("service_type", 0, 5, codec.RINVSERTYP),
    ("source_addr", 2, MAX_ADDRESS, codec.RINVSRCADR),
    ("destination_addr", 2, MAX_ADDRESS, codec.RINVDSTADR),
)


def decode(body: bytes) -> ShortMessage:
    """All of it or none; ``ProtocolError`` and parameters as ``codec.decode_short_message``."""
    found = _MANDATORY.match(body)
    if found is None:
        raise codec.fault(body, _FIELDS)
    service_type, source_type, source, destination_type, destination, modes = found.groups()
    return ShortMessage(
        service_type=service_type.decode(),
        source=Address(source.decode(), source_type[0], source_type[1]),
        destination=Address(destination.decode(), destination_type[0], destination_type[1]),
        esm_class=modes[0],
        registered_delivery=modes[1],
        data_coding=modes[2],
        tlvs=codec.decode_tlvs(body, found.end()),
    )
