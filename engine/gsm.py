"""The GSM 7-bit default alphabet (3GPP TS 23.038 §6.2.1): what an SMS can say without Unicode."""

from __future__ import annotations

_BASIC = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    "ÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENDED = "\f^{}\\[~]|€"
_ALPHABET = frozenset(_BASIC + _EXTENDED)


def is_gsm(text: str) -> bool:
    """Whether every character of ``text`` is in the default alphabet or its extension table."""
    return _ALPHABET.issuperset(text)
