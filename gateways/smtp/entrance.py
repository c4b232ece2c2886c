"""Where mail and bounces come in: the listener, and a mailbox for each provider that has one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import structlog
import trio

from engine.clock import Clock
from engine.config import Config
from engine.gateway import Inbox
from engine.model import Provider
from gateways.smtp.bounces import Matcher
from gateways.smtp.imap import ImapPoller
from gateways.smtp.intake import Intake
from gateways.smtp.journal import Journal
from gateways.smtp.listener import Listener
from gateways.smtp.loop import Loop
from gateways.smtp.readers import Readers
from gateways.smtp.settings import SmtpSettings
from gateways.smtp.tracker import Tracker
from gateways.smtp.verp import Verp

log = structlog.get_logger("smtp")

LISTEN_AGAIN_S = 10.0
"""How long until an address that could not be had is tried again."""


class _Polled(NamedTuple):
    provider: Provider
    scope: trio.CancelScope
    poller: ImapPoller


class Entrance:
    """Nothing runs in it until a provider's mailbox or the configuration asks for it.

    ``InvalidError``: the listener is configured as it can never work.
    """

    def __init__(  # noqa: PLR0917 - the parts it joins
        self,
        config: Config,
        verp: Verp,
        loop: Loop,
        tracker: Tracker,
        journal: Journal,
        inbox: Inbox,
        clock: Clock,
    ) -> None:
        self._config = config.smtp
        self._loop = loop
        self._journal = journal
        self._matcher = Matcher(verp, tracker)
        self._readers = Readers(config.smtp)
        self._intake = Intake(
            inbox=inbox,
            readers=self._readers,
            matcher=self._matcher,
            books=tracker,
            data=config.data_path,
            clock=clock,
            repeat_within_s=config.smtp.repeat_within_s,
            min_free_bytes=config.smtp.min_free_bytes,
        )
        # At once: a configuration that cannot work stops the start, not the node in its midst.
        port = config.smtp.listen_port
        self._listener = Listener(config.smtp, loop, self._intake) if port else None
        self._open = False
        self._polled: dict[int, _Polled] = {}
        self.port = 0  # of the listener; 0 = it does not listen

    async def serve(
        self,
        nursery: trio.Nursery,
        providers: Mapping[int, Provider],
        settings: Mapping[int, SmtpSettings],
    ) -> None:
        """Know these providers' bounce addresses, read their mailboxes, and listen."""
        self._matcher.serve(each.bounce_address for each in settings.values())
        mailboxes = {id_: providers[id_] for id_, each in settings.items() if each.imap}
        if not self._open and (self._config.listen_port or mailboxes):
            self._open = True
            await self._intake.open()
            await nursery.start(self._readers.run)
            if self._listener is not None:
                nursery.start_soon(self._listen, self._listener)
        self._poll(nursery, mailboxes, settings)

    def _poll(
        self,
        nursery: trio.Nursery,
        mailboxes: Mapping[int, Provider],
        settings: Mapping[int, SmtpSettings],
    ) -> None:
        for id_, polled in list(self._polled.items()):
            if mailboxes.get(id_) != polled.provider:
                polled.scope.cancel()
                del self._polled[id_]
        for id_, provider in mailboxes.items():
            if id_ not in self._polled:
                imap = settings[id_].imap
                assert imap is not None  # noqa: S101 - ``mailboxes`` are those that have one
                poller = ImapPoller(
                    provider,
                    imap,
                    self._intake,
                    self._journal,
                    ca_file=self._config.ca_file,
                    max_bytes=self._config.max_message_bytes,
                )
                self._polled[id_] = polled = _Polled(provider, trio.CancelScope(), poller)
                nursery.start_soon(_within, polled.scope, poller)

    async def _listen(self, listener: Listener) -> None:
        """Until cancelled; an address that is taken is tried again, nobody can mend it here."""
        while True:
            try:
                async with trio.open_nursery() as nursery:
                    self.port = await nursery.start(listener.run)
            except* OSError as errors:
                self.port = 0
                log.error("smtp.cannot_listen", cause=str(errors.exceptions[0]))  # noqa: TRY400
            await trio.sleep(LISTEN_AGAIN_S)

    def statistics(self) -> dict[str, Any]:
        """Listener, mailboxes, mails being taken, readers."""
        return {
            "port": self.port,
            "mailboxes": {
                each.provider.name: each.poller.statistics() for each in self._polled.values()
            },
            "intake": self._intake.statistics(),
            "readers": self._readers.statistics(),
            "listener": {} if self._listener is None else self._listener.statistics(),
        }


async def _within(scope: trio.CancelScope, poller: ImapPoller) -> None:
    with scope:
        await poller.run()
