"""The PDUs this gateway speaks, as frozen structs; clauses are SMPP 3.4's. Pure.

They hold numbers and octets, so no cycle can be made of them: ``gc=False`` keeps the collector from
looking at each of the thousands that are under way.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

HEADER_SIZE = 16
MAX_SEQUENCE = 0x7FFFFFFF
"""§4.1: sequence numbers run from 1 to this and start again."""


class Command(IntEnum):
    """command_id (§5.1.2.1); a response has the highest bit set."""

    GENERIC_NACK = 0x80000000
    BIND_RECEIVER = 0x00000001
    BIND_RECEIVER_RESP = 0x80000001
    BIND_TRANSMITTER = 0x00000002
    BIND_TRANSMITTER_RESP = 0x80000002
    QUERY_SM = 0x00000003
    QUERY_SM_RESP = 0x80000003
    SUBMIT_SM = 0x00000004
    SUBMIT_SM_RESP = 0x80000004
    DELIVER_SM = 0x00000005
    DELIVER_SM_RESP = 0x80000005
    UNBIND = 0x00000006
    UNBIND_RESP = 0x80000006
    BIND_TRANSCEIVER = 0x00000009
    BIND_TRANSCEIVER_RESP = 0x80000009
    OUTBIND = 0x0000000B
    ENQUIRE_LINK = 0x00000015
    ENQUIRE_LINK_RESP = 0x80000015
    ALERT_NOTIFICATION = 0x00000102
    DATA_SM = 0x00000103
    DATA_SM_RESP = 0x80000103


class Tag(IntEnum):
    """Optional parameters we read or write (§5.3.2)."""

    USER_MESSAGE_REFERENCE = 0x0204
    SAR_MSG_REF_NUM = 0x020C
    SAR_TOTAL_SEGMENTS = 0x020E
    SAR_SEGMENT_SEQNUM = 0x020F
    RECEIPTED_MESSAGE_ID = 0x001E
    NETWORK_ERROR_CODE = 0x0423
    MESSAGE_PAYLOAD = 0x0424
    MESSAGE_STATE = 0x0427


class ProtocolError(Exception):
    """Octets that are no PDU; ``status`` is what the answer should say (§5.1.3).

    ``fatal``: where the next PDU begins is not known, the connection must be closed.
    """

    def __init__(self, reason: str, status: int, *, fatal: bool = False) -> None:
        super().__init__(reason)
        self.status = status
        self.fatal = fatal


class Address(msgspec.Struct, frozen=True, gc=False):
    """A party's address with type of number and numbering plan (§5.2.5, §5.2.6)."""

    digits: str = ""
    ton: int = 0
    npi: int = 0


class ShortMessage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The body of a submit_sm, deliver_sm or data_sm (§4.4.1, §4.6.1, §4.7.1), in the wire's order.

    ``octets`` is the user data (with its header where ``esm_class`` says so), at most 254; times
    are as on the wire ("" = none). ``tlvs`` are optional parameters in order, values uninterpreted.
    """

    service_type: str = ""
    source: Address = Address()
    destination: Address = Address()
    esm_class: int = 0
    protocol_id: int = 0
    priority: int = 0
    schedule_time: str = ""
    validity_period: str = ""
    registered_delivery: int = 0
    replace_if_present: int = 0
    data_coding: int = 0
    default_message_id: int = 0
    octets: bytes = b""
    tlvs: tuple[tuple[int, bytes], ...] = ()

    def tlv(self, tag: int) -> bytes | None:
        """The first optional parameter with this tag."""
        return next((value for number, value in self.tlvs if number == tag), None)


class Pdu(msgspec.Struct, frozen=True, gc=False):
    """One PDU; ``body`` are the octets after the header."""

    command: int
    status: int
    sequence: int
    body: bytes = b""
