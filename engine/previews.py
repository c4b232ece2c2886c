"""The words of a program with its tokens found: what a gateway sends, what a dry run shows."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import trio

from engine.catalog import Catalog
from engine.config import Config
from engine.model import (
    Account,
    Contact,
    Document,
    Program,
    Template,
    Text,
    Transmission,
    User,
)
from engine.plaintext import plain_text
from engine.store.base import Store
from engine.tokens import Context, Escape, Phrase, compiled
from engine.unsubscribes import Links

_PLAIN_TYPES = frozenset({"plain", "text", "txt"})
"""Types of templates whose body is no HTML."""

_AT_ONCE = 20_000  # characters made plain within a millisecond or two


class Wording(msgspec.Struct, frozen=True):
    """The texts of one program, read once; ``words`` per contact.

    Of an SMS: ``text``. Of an e-mail: ``subject``, ``body`` (HTML) and ``body_alt`` (plain), ""
    where a mail has none. Of speech: ``tts``. Recordings and documents have none.
    """

    phrases: Mapping[str, Phrase]
    shared: Context

    def context(
        self,
        contact: Contact,
        account: Account | None,
        *,
        transmission: Transmission | None = None,
        spool_id: int | None = None,
        results: Mapping[str, str] | None = None,
        unsubscribe: str | None = None,
    ) -> Context:
        """What the tokens of one contact's texts are resolved from."""
        return msgspec.structs.replace(
            self.shared,
            contact=contact,
            account=account,
            transmission=transmission,
            spool_id=spool_id,
            results=results or {},
            unsubscribe=unsubscribe,
        )

    def filled(self, context: Context) -> dict[str, str]:
        """The texts for one contact, each escaped for what it becomes a part of."""
        return {name: phrase.fill(context) for name, phrase in self.phrases.items()}

    def words(
        self,
        contact: Contact,
        account: Account | None,
        *,
        transmission: Transmission | None = None,
        spool_id: int | None = None,
        results: Mapping[str, str] | None = None,
    ) -> dict[str, str]:
        """``filled`` from the context of one contact."""
        return self.filled(
            self.context(
                contact, account, transmission=transmission, spool_id=spool_id, results=results
            )
        )

    def preview(
        self,
        contact: Contact,
        account: Account | None,
        links: Links | None,
        owner_id: int | None,
    ) -> dict[str, str]:
        """``words`` before there is a transmission: its tokens stay as they are."""
        link = links.url(owner_id, contact.email) if links and self.is_mail else None
        return self.filled(self.context(contact, account, unsubscribe=link))

    @property
    def is_mail(self) -> bool:
        """Whether its contacts get links to unsubscribe by."""
        return "subject" in self.phrases


async def wording(
    store: Store, config: Config, program: Program, template: Template | None = None
) -> Wording:
    """The texts of a program; what it refers to and is gone counts as empty.

    ``template`` is its template, where the caller has it.
    """
    document_id = program.data.get("document_id")
    shared = Context(
        program=program,
        user=None if program.owner_id is None else await store.get(User, program.owner_id),
        document=None if document_id is None else await store.get(Document, document_id),
        company=config.company,
        website=config.website,
    )
    phrases = await (_phrases(store, program) if template is None else _of_template(template))
    return Wording(phrases, shared)


async def preview(
    catalog: Catalog,
    program: Program,
    contact: Contact,
    account: Account | None,
    links: Links | None = None,
) -> dict[str, str]:
    """What ``contact`` would be sent: see ``Wording``. The rows are the caller's to see.

    Tokens of a transmission stay as they are, there is none.
    """
    texts = await wording(catalog.store, catalog.config, program)
    return texts.preview(contact, account, links, program.owner_id)


async def _phrases(store: Store, program: Program) -> dict[str, Phrase]:
    match program.data:
        case {"text_id": int(text_id)}:
            text = await store.get(Text, text_id)
            return {} if text is None else {"text": compiled(text.data)}
        case {"template_id": int(template_id)}:
            template = await store.get(Template, template_id)
            return {} if template is None else await _of_template(template)
        case {"text": str(spoken)}:
            return {"tts": compiled(spoken)}
        case _:
            return {}


async def _of_template(template: Template) -> dict[str, Phrase]:
    body, body_alt = await _bodies(template)
    return {
        "subject": compiled(template.subject, Escape.HEADER),
        "body": compiled(body, Escape.HTML),
        "body_alt": compiled(body_alt),
    }


async def _bodies(template: Template) -> tuple[str, str]:
    """HTML and plain text of a template: the plain one is made where its author gave none."""
    if template.type.lower() in _PLAIN_TYPES:
        return "", template.body_alt or template.body
    if template.body_alt.strip():
        return template.body, template.body_alt
    if len(template.body) <= _AT_ONCE:
        return template.body, plain_text(template.body)
    return template.body, await trio.to_thread.run_sync(plain_text, template.body)
