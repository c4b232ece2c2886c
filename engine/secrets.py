"""Secrets at rest: passwords of trunks and accounts are encrypted in the database.

AES-256-GCM; the row and the field are associated data, so that a value cannot be moved to another
row. The key is ``OUTSPOOL_SECRET_KEY`` or, where there is none, the file ``keys/secrets.key``, made
at the first start. A sealed value names its key: one that was sealed with a key we do not have is
never used as if it were the password.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import structlog
import trio
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from engine import keyfiles
from engine.config import Config
from engine.errors import InvalidError, UnavailableError
from engine.model import Account, Entity, Provider
from engine.store.base import Condition, Op, Query, Store

E = TypeVar("E", bound=Entity)
Change = Callable[[Any, str], Any]

PREFIX = "sealed:1:"
"""What sealed values begin with: the version; key id, ``:`` and base64 follow."""

KEY_BYTES = 32
_NONCE_BYTES = 12  # NIST SP 800-38D §5.2.1.1; random, far below 2^32 of them under one key
_KEY_ID_LENGTH = 8
_PAGE = 500

FIELDS: dict[type[Entity], tuple[str, ...]] = {
    Provider: ("password",),
    Account: ("passwd", "passwd_pin"),
}
"""Text fields that are secret."""

_MAPS: dict[type[Entity], tuple[str, ...]] = {Provider: ("settings",)}
# Keys of such a map whose values are secret, whatever is around them ("smtpPassword", "api-key").
_SECRET_WORDS = (
    "password", "passwd", "passphrase", "secret", "token", "apikey", "privatekey", "credential",
)  # fmt: skip

log = structlog.get_logger("secrets")


class UnreadableSecretError(UnavailableError):
    """A stored secret was sealed with a key we do not have, or was tampered with."""


class KeyRing:
    """The key that seals, and others that may still open."""

    def __init__(self, key: bytes, *old: bytes) -> None:
        self._raw = (key, *old)
        self._current = _key_id(key)
        self._keys = {_key_id(each): AESGCM(each) for each in (key, *old)}

    def seal(self, value: Any, place: str) -> str:
        """A JSON value as sealed text; only the same ``place`` opens it."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._keys[self._current].encrypt(
            nonce, msgspec.json.encode(value), place.encode()
        )
        return f"{PREFIX}{self._current}:{base64.b64encode(nonce + sealed).decode()}"

    def open(self, sealed: str, place: str) -> Any:
        """The value; ``UnreadableSecretError`` where key, place or text are not the right ones."""
        key_id, _, text = sealed.removeprefix(PREFIX).partition(":")
        key = self._keys.get(key_id)
        if key is None:
            raise UnreadableSecretError(
                f"sealed with the key {key_id}, which this node does not have"
            )
        try:
            raw = base64.b64decode(text, validate=True)
            opened = key.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], place.encode())
        except (InvalidTag, ValueError):
            raise UnreadableSecretError("damaged, or copied from another row") from None
        return msgspec.json.decode(opened)

    def refreshed(self, value: Any, place: str) -> Any:
        """``value`` sealed with the current key, as far as we can read it."""
        if not is_sealed(value):
            return self.seal(value, place)
        if value.startswith(f"{PREFIX}{self._current}:"):
            return value
        try:
            return self.seal(self.open(value, place), place)
        except UnreadableSecretError:
            return value

    def derived(self, purpose: str) -> tuple[bytes, ...]:
        """Keys for another purpose, from the current and then the others (HKDF, RFC 5869)."""
        return tuple(_derived(key, purpose) for key in self._raw)

    def plain(self, value: Any, place: str) -> Any:
        """``value`` opened; one that was never sealed is itself."""
        return self.open(value, place) if is_sealed(value) else value


class Secrets:
    """Seals what a node stores and opens what its gateways need."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._ring: KeyRing | None = None
        self._loading = trio.Lock()
        self.unreadable: dict[int, str] = {}  # provider id: why

    async def ring(self) -> KeyRing:
        """The keys, read at the first need; ``InvalidError`` where they cannot be used."""
        async with self._loading:
            if self._ring is None:
                path = self._config.data_path / "keys" / "secrets.key"
                given = self._config.secret
                self._ring = await trio.to_thread.run_sync(_load, given.key, given.key_old, path)
            return self._ring

    async def sealed(self, entity: E) -> E:
        """The row as it is stored."""
        if type(entity) not in FIELDS:
            return entity
        return _changed(entity, (await self.ring()).refreshed)

    async def opened(self, entity: E) -> E:
        """The row with its secrets; ``UnreadableSecretError`` names the one that stays shut."""
        if type(entity) not in FIELDS:
            return entity
        return _changed(entity, (await self.ring()).plain)

    async def usable(self, providers: Iterable[Provider]) -> list[Provider]:
        """Providers as gateways need them, without those whose secrets cannot be read."""
        found: list[Provider] = []
        self.unreadable = {}
        for provider in providers:
            try:
                found.append(await self.opened(provider))
            except UnreadableSecretError as error:
                self.unreadable[provider.id] = str(error)
                log.error(  # noqa: TRY400 - the traceback tells nothing more
                    "provider_out_of_use", provider_id=provider.id, cause=str(error)
                )
        return found

    async def seal_stored(self, store: Store) -> None:
        """Seal what is stored in the clear or under an old key; before anybody writes."""
        for kind in FIELDS:
            after, resealed = 0, 0
            while rows := await store.find(kind, _after(after)):
                for row in rows:
                    sealed = await self.sealed(row)
                    if sealed != row:
                        await store.overwrite(sealed)
                        resealed += 1
                after = rows[-1].id
            if resealed:
                log.info("secrets_sealed", kind=kind.__name__, rows=resealed)

    def health(self) -> str:
        """``ok``, or which providers are out of use and why."""
        causes = [f"provider {id_}: {cause}" for id_, cause in sorted(self.unreadable.items())]
        return "; ".join(causes) or "ok"


# --- what is secret, without a key -------------------------------------------------------------
def is_sealed(value: Any) -> bool:
    """Whether this is what ``KeyRing.seal`` made."""
    return isinstance(value, str) and value.startswith(PREFIX)


def is_secret(key: str) -> bool:
    """Whether a setting of this name is a secret."""
    plain = key.lower().replace("_", "").replace("-", "")
    return any(word in plain for word in _SECRET_WORDS)


def without_secrets(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as anybody may see them."""
    return {key: _shown(value) for key, value in settings.items() if not is_secret(key)}


def keeping_secrets(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """``new`` settings with the secrets of ``old`` it does not name.

    Who reads settings, edits and writes them back never saw the secrets; null or "" removes one.
    """
    merged = {
        key: value for key, value in new.items() if not (is_secret(key) and value in (None, ""))
    }
    for key, before in old.items():
        if is_secret(key):
            if key not in new:
                merged[key] = before
        elif isinstance(before, dict) and isinstance(merged.get(key), dict):
            merged[key] = keeping_secrets(before, merged[key])
    return merged


def hidden(entity: E) -> E:
    """The row without what is sealed: for checks of what was given."""
    return _changed(entity, lambda value, _place: "" if is_sealed(value) else value)


def refuse_sealed(kind: type[Entity], given: Mapping[str, Any]) -> None:
    """``InvalidError`` where a secret is given in our own spelling: nobody may plant one."""

    def refuse(value: Any, place: str) -> Any:
        if is_sealed(value):
            field = place.rsplit(".", maxsplit=1)[-1]
            raise InvalidError(f"{field}: must not begin with {PREFIX}", field=field)
        return value

    for name in FIELDS.get(kind, ()):
        refuse(given.get(name), name)
    for name in _MAPS.get(kind, ()):
        _walk(given.get(name, {}), name, refuse)


def _shown(value: Any) -> Any:
    if isinstance(value, dict):
        return without_secrets(value)
    return [_shown(each) for each in value] if isinstance(value, list) else value


def _changed(entity: E, change: Change) -> E:
    """``entity`` with ``change(value, place)`` of every secret in it."""
    kind = type(entity)
    at = f"{entity.uid}/{kind.__name__.lower()}"
    changes = {
        name: change(value, f"{at}.{name}")
        for name in FIELDS.get(kind, ())
        if (value := getattr(entity, name))
    }
    for name in _MAPS.get(kind, ()):
        changes[name] = _walk(getattr(entity, name), f"{at}.{name}", change)
    return msgspec.structs.replace(entity, **changes)


def _walk(value: Any, place: str, change: Change) -> Any:
    if isinstance(value, list):
        return [_walk(each, place, change) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        key: change(each, f"{place}.{key}")
        if is_secret(key) and each not in (None, "")
        else _walk(each, f"{place}.{key}", change)
        for key, each in value.items()
    }


def _after(entity_id: int) -> Query:
    return Query(conditions=(Condition("id", Op.GE, entity_id + 1),), limit=_PAGE)


# --- keys ----------------------------------------------------------------------------------------
def _derived(key: bytes, purpose: str) -> bytes:
    info = b"outspool\0" + purpose.encode()
    return HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=info).derive(key)


def _key_id(key: bytes) -> str:
    """A short name of a key that tells nothing of it."""
    return hashlib.sha256(b"outspool key id\0" + key).hexdigest()[:_KEY_ID_LENGTH]


def _load(given: str, old: str, path: Path) -> KeyRing:
    """The keys of environment and file. The file is made where neither is there."""
    former = [_decoded(text, "OUTSPOOL_SECRET_KEY_OLD") for text in old.split(",") if text.strip()]
    if not given:
        keyfiles.make(path, _fresh)
        return KeyRing(_read(path), *former)
    if path.exists():
        # Who moves from the file to the environment loses nothing.
        former.append(_read(path))
    return KeyRing(_decoded(given, "OUTSPOOL_SECRET_KEY"), *former)


def _decoded(text: str, name: str) -> bytes:
    try:
        key = base64.b64decode(text.strip().replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise InvalidError(f"{name}: must be {KEY_BYTES} bytes in base64", field=name)
    return key


def _fresh() -> bytes:
    return base64.b64encode(os.urandom(KEY_BYTES)) + b"\n"


def _read(path: Path) -> bytes:
    return _decoded(keyfiles.read(path).decode("ascii", "replace"), str(path))
