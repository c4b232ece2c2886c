"""A stream of octets cut into PDUs by command_length (SMPP 3.4 §5.1.1). Pure.

Pieces of any size come in; memory is bounded by the longest PDU allowed plus one piece, and the
time is linear in what was fed, whatever the pieces.
"""

from __future__ import annotations

import struct

from gateways.smpp.pdu import HEADER_SIZE, Pdu, ProtocolError

RINVCMDLEN = 0x02
"""ESME_RINVCMDLEN, §5.1.3."""

RawPdu = tuple[int, int, int, bytes]
"""command, status, sequence, body: what the hot path reads instead of a ``Pdu``."""

_LENGTH = struct.Struct(">I")
_HEADER = struct.Struct(">IIII")


class Framer:
    """Feed it what the connection gave; it hands out whole PDUs, in order.

    A command_length below 16 or above ``max_pdu_bytes`` ends the stream, for nobody knows where the
    next PDU begins: what came whole before it is still handed out, ``error`` is set (fatal, status
    ESME_RINVCMDLEN), nothing more is kept, and feeding it again raises ``error``.
    """

    def __init__(self, max_pdu_bytes: int) -> None:
        self.max_pdu_bytes = max_pdu_bytes
        self.error: ProtocolError | None = None
        self._kept = bytearray()
        self._needed = _LENGTH.size  # octets that must be there before a look is worth it

    @property
    def kept_bytes(self) -> int:
        """Octets of a PDU that is not whole yet."""
        return len(self._kept)

    def feed(self, data: bytes) -> list[Pdu]:
        """The PDUs that ``data`` completes."""
        return [Pdu(*raw) for raw in self.feed_raw(data)]

    def feed_raw(self, data: bytes) -> list[RawPdu]:
        """As ``feed``, without an object for each PDU: thousands of responses come in one piece."""
        if self.error is not None:
            raise self.error
        kept = self._kept
        if kept or len(data) < self._needed:
            kept += data
            if len(kept) < self._needed:
                return []
            data = bytes(kept)
            kept.clear()
        return self._cut(data)

    def _cut(self, data: bytes) -> list[RawPdu]:
        pdus: list[RawPdu] = []
        unpack, longest, size = _HEADER.unpack_from, self.max_pdu_bytes, len(data)
        position, last = 0, size - HEADER_SIZE
        while position <= last:
            length, command, status, sequence = unpack(data, position)
            end = position + length
            if end > size or not HEADER_SIZE <= length <= longest:
                break
            pdus.append((command, status, sequence, data[position + HEADER_SIZE : end]))
            position = end
        self._keep(data, position)
        return pdus

    def _keep(self, data: bytes, position: int) -> None:
        """Keep the beginning of a PDU, unless its length is already wrong."""
        self._needed = _LENGTH.size
        if len(data) - position >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(data, position)
            if not HEADER_SIZE <= length <= self.max_pdu_bytes:
                self.error = ProtocolError(f"command_length {length}", RINVCMDLEN, fatal=True)
                return
            self._needed = length
        self._kept += data[position:]
