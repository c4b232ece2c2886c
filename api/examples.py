"""What every field of the API means, with an example value: one table for bodies and answers.

The same word means the same thing in every resource, so the table goes by name. Examples of whole
bodies and answers are put together from it along their JSON Schema.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

Schema = dict[str, Any]

_WHEN = 1_767_225_600  # 2026-01-01 00:00:00 UTC
_ID = "Its number, given by the server."


class Field(msgspec.Struct, frozen=True):
    """A word of the API: an example value and what it means (Markdown)."""

    example: Any
    meaning: str


def _id_of(noun: str) -> Field:
    return Field(1, f"The number of a {noun}.")


FIELDS: dict[str, Field] = {
    # --- ids
    "id": Field(1, _ID),
    **{
        f"{noun}_id": _id_of(noun)
        for noun in ("campaign", "contact", "document", "group", "permission", "program",
                     "recording", "role", "schedule", "spool", "task", "template", "text",
                     "transmission")
    },
    "do_not_contact_id": Field(1, "The number of a closed address."),
    "account_id": Field(1, "The number of an account; without it, the caller's default one."),
    "country_id": Field(49, "The country, as a number of the client's choice."),
    "language_id": Field("en", "The language, two letters."),
    "node_id": Field(1, "The node that serves it."),
    "parent_id": Field(1, "The program that this one is a part of."),
    "provider_id": Field(1, "The number of a provider (trunk)."),
    "spool_result_id": Field(1, "The number of a result."),
    "timezone_id": Field(3600, "The time zone as an offset from UTC in seconds."),
    "user_id": Field(1, "The user whose row it is."),
    "created_by": Field(1, "The user whose row it is (the same as `user_id`)."),
    "owner_id": Field(1, "The user whose row it is."),
    # --- people and addresses
    "first_name": Field("Ada", "First name."),
    "last_name": Field("Lovelace", "Last name."),
    "phone": Field("+4930123456", "Telephone number; digits, + before an international one."),
    "email": Field("ada@example.com", "E-mail address."),
    "address": Field("1 Analytical Way, London", "Postal address; of `/do_not_contact`, a piece of "
                     "the number or e-mail address."),
    "company": Field("Analytical Engines", "Company."),
    "custom1": Field("gold", "Free for the client; a text may hold `[contact:custom1]`."),
    "custom2": Field("renewal", "Free for the client."),
    "custom3": Field("2026-01-01", "Free for the client."),
    "description": Field("For the January campaign", "Free text for people."),
    "username": Field("ada", "The name to log in with."),
    "password": Field("correct horse battery", "Not shown again, except to who may set it by "
                      "`/accounts/{account_id}/provisioning`."),
    "passwd": Field("correct horse battery", "Write-only; never shown again."),
    "passwd_pin": Field("4711", "Write-only; never shown again."),
    "country": Field("Germany", "The country."),
    "roles": Field(["user"], "Names or numbers of roles."),
    "permissions": Field("contact_read,contact_list", "Names of permissions, split by commas."),
    "timezone": Field("Europe/Berlin", "IANA time zone; empty: the owner's, else the node's."),
    "active": Field(1, "1 for active, 0 for disabled."),
    "settings": Field({}, "Named values that change how it is served."),
    "account": Field(None, "The account, as it is now."),
    "contact": Field(None, "The contact, as it is now."),
    "account_phone": Field("+4930999888", "The account's telephone number: the caller id."),
    "account_email": Field("sales@example.com", "The account's e-mail address."),
    "contact_phone": Field("+4930123456", "The contact's telephone number."),
    "contact_email": Field("ada@example.com", "The contact's e-mail address."),
    # --- tokens
    "token": Field("eyJhbGciOiJSUzI1NiJ9.e30.c2ln", "Goes into `Authorization: Bearer …`."),
    "access_token": Field("eyJhbGciOiJSUzI1NiJ9.e30.c2ln", "The same as `token`."),
    "token_type": Field("Bearer", "How the token is sent."),
    "scope": Field("All", "What the token is good for."),
    "expires_in": Field(86_400, "Seconds until the token ends."),
    # --- messages
    "name": Field("January", "Its name."),
    "type": Field("", "Its kind."),
    "quality": Field("standard", "The resolution of a fax: basic, standard, fine, super, superior "
                     "or ultra."),
    "pages": Field(2, "Number of pages."),
    "size_x": Field(595, "Width of the first page in points (1/72 inch)."),
    "size_y": Field(842, "Height of the first page in points (1/72 inch)."),
    "resolution_x": Field(204, "Dots per inch across."),
    "resolution_y": Field(98, "Dots per inch down."),
    "message_id": Field(1, "The number of the message, whatever its kind."),
    "link": Field("recording_1.wav", "The same as `file_name`."),
    "attachment": Field("terms.pdf", "Names of the attachments, split by commas."),
    "aAttachment": Field(["terms.pdf"], "Names of the attachments."),
    "class": Field(1, "1: a message that stays on the phone; 0: shown at once and not kept."),
    "encoding": Field(0, "GSM 0, binary 1, Unicode 2, Latin-1 3: what its characters need."),
    "alphabet": Field("gsm", "gsm, latin1, ucs2 or binary: what its characters need."),
    "validity": Field(86_400, "Seconds the network may try; 0: as long as the provider does."),
    "parts": Field(1, "How many SMS it takes."),
    "per_part": Field(160, "Units that each part has room for."),
    "units": Field(9, "Septets (GSM), octets or UTF-16 units it takes."),
    "texts": Field(["Hello Ada"], "The text of each part."),
    "unsupported": Field([], "Characters the GSM alphabet does not have."),
    "unresolved": Field([], "Tokens that stay as they are written."),
    "price": Field(0.07, "What all of it costs."),
    "currency": Field("EUR", "Of prices, as the node is set up."),
    "estimated": Field(0, "1 where it may differ by contact or provider."),
    "program_data": Field({}, "The fields of the new program."),
    "transmission_data": Field({}, "The fields of the new transmission."),
    "file_name": Field("message_1.wav", "The name of its media; empty where there is none."),
    "length": Field(24, "Seconds of a recording, bytes or characters of a text."),
    "codec": Field("pcm_s16le", "How the sound is stored."),
    "channel": Field(1, "Channels of the sound."),
    "sample": Field(8000, "Samples a second."),
    "bitrate": Field(16, "Bits a sample."),
    "subject": Field("News for [contact:first_name]", "Subject; tokens are replaced."),
    "body": Field("<p>Hello [contact:first_name]</p>", "HTML of the e-mail; tokens are replaced."),
    "body_alt": Field("Hello [contact:first_name]", "Plain text of the e-mail."),
    "data": Field("Hello [contact:first_name]", "The message itself, or the datum collected."),
    "text": Field("Hello [contact:first_name]", "What is spoken; tokens are replaced."),
    "delay": Field(60, "Seconds from now (of a schedule), milliseconds of silence (of a program)."),
    # --- what is done, and what became of it
    "title": Field("January call", "What people call it; default: the program's name."),
    "origin": Field("voicemessage", "What made it; default: the program's type."),
    "direction": Field("outbound", "outbound or inbound."),
    "service_flag": Field(1, "Sum of voice 1, fax 2, SMS 4, e-mail 8."),
    "status": Field("completed", "Where it is in its life."),
    "response": Field("busy", "The cause of its last result, e.g. `busy`, `no_answer`."),
    "disposition": Field("answered", "The outcome of an attempt."),
    "code": Field("486", "The protocol's own code of the outcome."),
    "try_allowed": Field(2, "How many attempts it may take."),
    "try_done": Field(1, "How many attempts it has taken."),
    "call_id": Field("2f6c2b9e-5a57-4a86-9a5c-0f2c1c9b8a11", "The Call-ID of the SIP call."),
    "amount": Field(24, "Billable seconds."),
    "destination": Field("+4930123456", "What was dialled."),
    "time_spool": Field(_WHEN, "When the attempt was put on record; Unix seconds."),
    "time_start": Field(_WHEN, "When it left; Unix seconds."),
    "time_connect": Field(_WHEN + 6, "When it was answered; Unix seconds."),
    "time_end": Field(_WHEN + 30, "When it ended; Unix seconds."),
    "due_at": Field(_WHEN + 60, "When it is tried next; Unix seconds."),
    "last_run": Field(_WHEN, "When it last ran; Unix seconds."),
    "date_created": Field(_WHEN, "When it was made; Unix seconds."),
    "last_updated": Field(_WHEN, "When it was last changed; Unix seconds."),
    # --- campaigns
    "cpm": Field(60, "Attempts started a minute."),
    "source": Field("crm", "Where its contacts came from; free for the client."),
    "contact_total": Field(1000, "Contacts in all."),
    "contact_done": Field(250, "Contacts that are done."),
    "program_type": Field("voicemessage", "The kind of its program."),
    "tally": Field({"completed": 200, "failed": 50}, "Live counts by outcome."),
    "successful": Field(200, "Transmissions that are completed."),
    "failed": Field(50, "Transmissions that failed or cannot be sent."),
    "reason": Field("busy", "What most failed attempts failed of; why an address is closed."),
    "retry_delays": Field({"busy": 60, "no_answer": 120, "failed": 30}, "Seconds until the next "
                          "try by outcome; the node's hold for those not named."),
    "ready": Field(1, "1 where a start would be taken."),
    "problems": Field([], "What a start would be refused for."),
    "contacts": Field(1000, "Members of its group."),
    "dialable": Field(740, "Contacts that would be dialled for the first time."),
    "retries": Field(10, "Contacts that would be dialled once more."),
    "taken": Field({"completed": 200, "failed": 40, "pending": 10}, "Contacts it has dealt with, "
                   "by status."),
    "skipped": Field({"invalid_number": 10}, "Contacts it would refuse, by cause."),
    "duration_s": Field(750, "Seconds it would take at its pace."),
    "preview": Field(None, "What the first of them would get."),
    "sms": Field(None, "What it comes to in parts and money."),
    "messages": Field(750, "Messages it would send."),
    "parts_per_message": Field(1, "Parts of the previewed message."),
    "words": Field({"text": "Hello Ada"}, "The program's texts for one contact, tokens replaced."),
    "complete": Field(1, "0 where there were too many contacts to count them all."),
    # --- schedules
    "action": Field("start", "What is done: send, start or stop."),
    "datetime": Field("2026-01-01T09:00:00", "The moment, ISO 8601."),
    "timestamp": Field(_WHEN, "The moment; Unix seconds."),
    "expiry": Field(_WHEN + 86_400, "From when on it happens no more."),
    "is_recurring": Field(0, "1 for again and again, 0 for once."),
    "year": Field("*", "Calendar field: `*`, a number, `a-b`, `*/n`, or a list of these."),
    "month": Field("*", "Calendar field, 1 to 12."),
    "day": Field("*", "Calendar field, 1 to 31."),
    "weekday": Field("2-6", "Calendar field, 1 is Sunday."),
    "hour": Field("9", "Calendar field, 0 to 23."),
    "minute": Field("0", "Calendar field, 0 to 59."),
    "note": Field("", "What became of the last run."),
    # --- providers
    "host": Field("sip.example.com", "Name or address of the far end."),
    "port": Field(5060, "Port of the far end."),
    "transport": Field("udp", "udp, tcp or tls."),
    "dialstring": Field("{number}", "Replaces the user part of what is dialled."),
    "prefix": Field("0049|+49", "Put before the number, or a comma list of `remove|add` rewrites."),
    "register": Field(0, "1 to register with the far end."),
    "weight": Field(10, "Lighter is used more often: share is 1/weight."),
    "calls_per_second": Field(10, "Most calls started a second; 0 for no limit of its own."),
    "cps": Field(10, "The same as `calls_per_second`."),
    "channels": Field(30, "Most calls up at once; 0 for no limit of its own."),
    # --- statistics
    "user_total": Field(3, "Users; 1 for who may not list them."),
    "account_total": Field(5, "Accounts of every type."),
    "did_total": Field(2, "Accounts of type did."),
    "provider_total": Field(1, "Providers (trunks)."),
    "campaign_total": Field(4, "Campaigns."),
    "campaign_active": Field(1, "Campaigns that are running."),
    "group_total": Field(4, "Groups of contacts."),
    "transmission_total": Field(1200, "Transmissions."),
    "transmission_active": Field(12, "Transmissions in process."),
    "transmission_inbound": Field(20, "Transmissions that came in."),
    "transmission_outbound": Field(1180, "Transmissions that went out, or shall."),
    "spool_total": Field(1500, "Attempts."),
    "spool_success": Field(900, "Attempts that were completed."),
    "spool_failed": Field(588, "Attempts that failed."),
    "since": Field(0, "Made at or after this time; Unix seconds."),
    "from": Field(0, "The same as `since`."),
    "account_type": Field("did", "The type of the accounts to count."),
    # --- provisioning
    "callerid": Field("1001", "The number callees see."),
    "wss": Field(7443, "Port of SIP over WebSockets."),
    "agent_login": Field("*1001", "What to dial to log in as an agent."),
    "voicemail": Field("*78", "What to dial for one's voicemail."),
    # --- what an upload came to
    "imported": Field(2, "Lines that are stored now."),
    "rejected": Field(1, "Lines that are not."),
    "errors": Field([], "The first bad lines and what is wrong with them."),
    "line": Field(3, "The number of the line, from 1."),
    "error": Field("phone: must not be empty", "What is wrong with it."),
    "import_id": Field(1, "The number of an import, since the node's start."),
    "state": Field("running", "running, done or failed."),
    "bytes_received": Field(1_048_576, "How much has come."),
    "bytes_expected": Field(52_428_800, "How much the sender announced."),
    "started": Field(_WHEN, "When it began; Unix seconds."),
    "finished": Field(_WHEN + 30, "When it ended; Unix seconds."),
    # --- lists
    "limit": Field(100, "At most this many rows."),
    "offset": Field(0, "Leave out this many rows first."),
    "sort": Field("-date_created", "Fields, split by commas; `-` before one: descending."),
    "before": Field(_WHEN, "Made at or before this time; Unix seconds."),
    "after": Field(0, "Made at or after this time; Unix seconds."),
    "value": Field("body", "The value of the setting."),
    "message": Field("phone: must not be empty", "What is wrong, for people; names the field."),
}  # fmt: skip
"""Every word. A test tells of a field that is not here."""

CSV = {
    "groups": "+4930123456,Ada,Lovelace,ada@example.com,,gold,,,\n+4930654321\n",
    "users": "username,passwd,first_name,active\nada,correct horse battery,Ada,1\n",
}
"""Files by the first word of their path."""

# Where a word means something else in one place: by the schema's title, then by the field.
_THERE: dict[str, dict[str, Any]] = {
    "ProviderBody": {"type": "sip", "name": "carrier"},
    "ProviderView": {"type": "sip", "name": "carrier", "settings": ""},
    "AccountBody": {"type": "account"},
    "AccountView": {"type": "account"},
    "ProgramView": {"type": "voicemessage"},
    "ProgramEdit": {"type": "voicemessage"},
    "ProgramPost": {"type": "voicemessage"},
    "RecordingView": {"type": "wav"},
    "DocumentBody": {"type": "pdf"},
    "DocumentView": {"type": "pdf", "file_name": "document_1.pdf"},
    "TemplateBody": {"type": "html"},
    "TemplateView": {"type": "html"},
    "TextBody": {"type": "plain"},
    "TextView": {"type": "plain"},
    "TextPreviewBody": {"type": "plain"},
    "TextPreviewView": {"data": "Hello Ada", "length": 9},
    "SmsFiguresView": {"parts": 750, "price": 52.5},
    "ResultView": {"type": "info", "name": "amd", "data": "human"},
    "SpoolView": {"response": ""},
    "DoNotContactBody": {"reason": "asked for it by telephone"},
    "DoNotContactView": {
        "phone": "4930123456",
        "email": "",
        "reason": "STOP by SMS",
        "service_flag": 4,
    },
}


# Where one of several ways is shown.
_LEFT_OUT: dict[str, frozenset[str]] = {
    "Credentials": frozenset({"email", "user_id"}),
    "ProviderBody": frozenset({"cps"}),
    "DoNotContactBody": frozenset({"email"}),
    "TransmissionBody": frozenset({"phone", "email", "first_name", "last_name"}),
}


def example(schema: Schema, components: Mapping[str, Schema], name: str = "") -> Any:
    """A value of ``schema``; ``name`` is the field it is for."""
    schema = _resolved(schema, components)
    if "const" in schema:
        return schema["const"]
    if "anyOf" in schema:
        return _first(schema["anyOf"], components, name)
    if "properties" in schema:
        return _object(schema, components)
    if "items" in schema:
        return _known(name, [example(schema["items"], components, name)], list)
    return _scalar(schema, name)


def _object(schema: Schema, components: Mapping[str, Schema]) -> dict[str, Any]:
    title = schema.get("title", "")
    special = _THERE.get(title, {})
    return {
        name: special[name] if name in special else example(part, components, name)
        for name, part in schema["properties"].items()
        if name not in _LEFT_OUT.get(title, ())
    }


def _first(choices: list[Schema], components: Mapping[str, Schema], name: str) -> Any:
    real = [choice for choice in choices if choice.get("type") != "null"]
    return example(real[0], components, name)


def _scalar(schema: Schema, name: str) -> Any:
    known = FIELDS[name].example if name in FIELDS else None
    if "enum" in schema:
        return known if known in schema["enum"] else schema["enum"][0]
    kind = schema.get("type", "string")
    kind = kind[0] if isinstance(kind, list) else kind
    spelled = _SPELL[kind](known)
    inside = schema.get("additionalProperties")
    if isinstance(spelled, dict) and isinstance(inside, dict) and "type" in inside:
        return {key: _SPELL[inside["type"]](value) for key, value in spelled.items()}
    return spelled


def _known(name: str, otherwise: Any, kind: type) -> Any:
    known = FIELDS[name].example if name in FIELDS else None
    return known if isinstance(known, kind) else otherwise


def _integer(known: Any) -> int:
    text = str(known).removeprefix("+")
    return int(text) if text.isdigit() else 1


_SPELL: dict[str, Callable[[Any], Any]] = {
    "string": lambda known: "" if known is None else str(known),
    "integer": _integer,
    "number": _integer,
    "boolean": bool,
    "object": lambda known: known if isinstance(known, dict) else {},
    "array": lambda known: known if isinstance(known, list) else [],
    "null": lambda _known: None,
}


def _resolved(schema: Schema, components: Mapping[str, Schema]) -> Schema:
    while "$ref" in schema:
        schema = components[schema["$ref"].rsplit("/", 1)[1]]
    return schema
