"""What a program says to one contact: the words of an SMS, a whole e-mail."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from engine import previews, segments
from engine.config import Config
from engine.errors import NotFoundError, NotReadyError
from engine.gateway import Program as BoundProgram
from engine.gateway import TextMessage
from engine.mail import MailFile, MailForm, MailMessage
from engine.model import Account, Contact, Program, Template, Text, Transmission
from engine.programs import Function, Material, bound
from engine.store.base import Begun, Candidate, Store
from engine.tokens import Context, Phrase, one_line
from engine.unsubscribes import Links
from engine.uploads import MediaFolder

Letter = Callable[[Candidate, Begun], BoundProgram]
"""Binds a program that says something else to every contact."""

_UNSUBSCRIBE = "[unsubscribe:url]"
_NOBODY = Context()


async def letter_of(
    store: Store,
    config: Config,
    program: Program,
    function: Function,
    account: Account | None,
    *,
    links: Links | None,
    owner_id: int | None,
) -> Letter | None:
    """How the program is bound to a contact; None where it says the same to all of them.

    ``owner_id`` is whose list an unsubscribed address goes on. Raises ``NotFoundError`` for a
    missing text or template, ``NotReadyError`` for a template that says nothing or whose link to
    unsubscribe by would lead nowhere.
    """
    match program.data:
        case {"text_id": int(text_id)}:
            message = await _text_message(store, text_id)
            texts = await previews.wording(store, config, program)
            return _Texts(texts, function, program, account, message)
        case {"template_id": int(template_id)}:
            template = await store.get(Template, template_id)
            if template is None:
                raise NotFoundError("Template not found")
            texts = await previews.wording(store, config, program, template)
            form = _form(config, template, texts)
            _check_links(texts, links)
            return _Mails(texts, function, program, account, form, links, owner_id)
        case _:
            return None


async def _text_message(store: Store, text_id: int) -> TextMessage:
    text = await store.get(Text, text_id)
    if text is None:
        raise NotFoundError("Text not found")
    return TextMessage(
        text=text.data,
        kind=segments.kind_of(text.type),
        flash=text.flash,
        validity_s=text.validity_s,
    )


def _form(config: Config, template: Template, texts: previews.Wording) -> MailForm:
    """What all mails of the template share; made once, so that a gateway encodes it once."""
    body, body_alt = _fixed(texts.phrases["body"]), _fixed(texts.phrases["body_alt"])
    if not (body or body_alt):
        raise NotReadyError(f"Template {template.id} has no text")
    folder = MediaFolder(config)
    files = tuple(
        MailFile(folder.path(one["path"]), one["name"], one["type"], one["size"])
        for one in template.attachments
    )
    return MailForm(body=body, body_alt=body_alt, attachments=files)


def _check_links(texts: previews.Wording, links: Links | None) -> None:
    nowhere = links is None or not links.lead_somewhere
    if nowhere and any(_UNSUBSCRIBE in one.unresolved(_NOBODY) for one in texts.phrases.values()):
        raise NotReadyError(
            f"Template uses {_UNSUBSCRIBE}, and website.url is no https address to make links of"
        )


def _fixed(phrase: Phrase) -> tuple[str, ...]:
    return phrase.fixed if phrase.varies or phrase.fixed[0].strip() else ()


class _Letters(msgspec.Struct, frozen=True):
    """Finds the words for one contact at a time: nothing is kept per contact."""

    texts: previews.Wording
    function: Function
    program: Program
    account: Account | None

    def _transmission(self, candidate: Candidate, begun: Begun) -> Transmission:
        """The contact's own, or a campaign's, which only the store has seen so far."""
        return candidate.transmission or Transmission(
            id=begun.transmission_id,
            title=self.program.name,
            program_id=self.program.id,
            contact_id=candidate.contact.id,
        )


class _Texts(_Letters, frozen=True):
    message: TextMessage

    def __call__(self, candidate: Candidate, begun: Begun) -> BoundProgram:
        """The program, saying what this contact is to be told."""
        words = self.texts.words(
            candidate.contact,
            self.account,
            transmission=self._transmission(candidate, begun),
            spool_id=begun.spool_id,
        )
        message = msgspec.structs.replace(self.message, text=words.get("text", ""))
        return bound(self.function, Material(message=message))


class _Mails(_Letters, frozen=True):
    form: MailForm
    links: Links | None
    owner_id: int | None

    def __call__(self, candidate: Candidate, begun: Begun) -> BoundProgram:
        """The program, sending what this contact is to read."""
        contact, phrases = candidate.contact, self.texts.phrases
        link = self.links.url(self.owner_id, contact.email) if self.links else ""
        context = self.texts.context(
            contact,
            self.account,
            transmission=self._transmission(candidate, begun),
            spool_id=begun.spool_id,
            unsubscribe=link,
        )
        mail = MailMessage(
            form=self.form,
            subject=phrases["subject"].fill(context),
            to_name=_full_name(contact),
            body=phrases["body"].values(context),
            body_alt=phrases["body_alt"].values(context),
            unsubscribe=link,
        )
        return bound(self.function, Material(mail=mail))


def _full_name(contact: Contact) -> str:
    return one_line(f"{contact.first_name} {contact.last_name}").strip()
