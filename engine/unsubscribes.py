"""Links in mails by which who reads them gets no more (RFC 8058)."""

from __future__ import annotations


class Links:
    """Makes them."""

    def url(self, owner_id: int | None, address: str) -> str:
        """Where ``address`` is put on the owner's list; "" where the node has no web address."""
        return ""
