"""Campaigns and single sends of short messages on the loopback gateway."""

from __future__ import annotations

from typing import Any

from engine.app import Engine
from engine.model import Campaign, Contact, Program, Provider, Service, Text, Transmission
from tests.support.engine import add_campaign, add_provider

HELLO = "Hello [contact:phone]"


async def add_sms_provider(engine: Engine, **settings: Any) -> Provider:
    """A loopback trunk for short messages; its script are ``settings``."""
    return await add_provider(engine, name="sms", service=Service.SMS, settings=settings)


async def add_sms_program(engine: Engine, data: str = HELLO, **fields: Any) -> Program:
    """A program that sends a text."""
    text = await engine.store.insert(Text(name="hello", data=data, **fields))
    return await engine.store.insert(
        Program(name="hello", type="sendsms", data={"text_id": text.id}, message_id=text.id)
    )


async def add_sms_campaign(engine: Engine, contacts: int, **fields: Any) -> Campaign:
    """A campaign of short messages over a new group; not started."""
    program = await add_sms_program(engine)
    return await add_campaign(engine, contacts, program_id=program.id, **fields)


async def add_sms(engine: Engine, phone: str = "4930", **fields: Any) -> Transmission:
    """A single message; not sent."""
    program = await add_sms_program(engine)
    contact = await engine.store.insert(Contact(phone=phone))
    return await engine.store.insert(
        Transmission(program_id=program.id, contact_id=contact.id, service=Service.SMS, **fields)
    )
