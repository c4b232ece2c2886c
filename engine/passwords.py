"""Passwords: argon2id, off the event loop, few at once."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TypeVar

import argon2
import trio

from engine.errors import InvalidError, UnavailableError

MAX_PASSWORD_LENGTH = 1024

R = TypeVar("R")


class Passwords:
    """argon2id (RFC 9106) off the event loop, few at once.

    19 MiB, 2 passes, 1 lane is OWASP's first choice. argon2-cffi's default (64 MiB, 3 passes) takes
    six times as long: 0.2 s of the cores that calls need for their audio.
    """

    def __init__(self, *, workers: int = 2, max_waiting: int = 64) -> None:
        self._hasher = argon2.PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
        self._limiter = trio.CapacityLimiter(workers)
        self._max_waiting = max_waiting
        self._nobody = ""

    async def hash(self, password: str) -> str:
        """The encoded hash to store; ``InvalidError`` for an empty or absurdly long password."""
        if not 0 < len(password) <= MAX_PASSWORD_LENGTH:
            raise InvalidError("password: must have 1 to 1024 characters", field="password")
        return await self._run(lambda: self._hasher.hash(password))

    async def verify(self, password_hash: str, password: str) -> bool:
        """Whether the password is the right one; an empty hash takes as long and is never right."""
        if len(password) > MAX_PASSWORD_LENGTH:
            return False
        if not self._nobody:
            self._nobody = await self.hash(secrets.token_urlsafe(16))
        matches = await self._run(lambda: self._matches(password_hash or self._nobody, password))
        return matches and bool(password_hash)

    def statistics(self) -> dict[str, int]:
        """Hashes being computed and callers waiting for one."""
        state = self._limiter.statistics()
        return {"hashing": state.borrowed_tokens, "waiting": state.tasks_waiting}

    def _matches(self, password_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False

    async def _run(self, job: Callable[[], R]) -> R:
        if self._limiter.statistics().tasks_waiting >= self._max_waiting:
            raise UnavailableError("Too many logins at once, try again later")
        return await trio.to_thread.run_sync(job, limiter=self._limiter)
