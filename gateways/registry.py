"""Every gateway there is: provider type → factory. Read only by the composition root."""

from __future__ import annotations

from collections.abc import Callable

from engine.config import Config
from engine.gateway import Gateway


def _loopback(_config: Config) -> Gateway:
    from gateways.loopback.gateway import LoopbackGateway  # noqa: PLC0415 - see below

    return LoopbackGateway()


def _sip(config: Config) -> Gateway:
    from gateways.sip.gateway import SipGateway  # noqa: PLC0415 - see below

    return SipGateway(config.sip)


def _smpp(config: Config) -> Gateway:
    from gateways.smpp.gateway import SmppGateway  # noqa: PLC0415 - see below

    return SmppGateway(config)


def _smtp(config: Config) -> Gateway:
    from gateways.smtp.gateway import SmtpGateway  # noqa: PLC0415 - see below

    return SmtpGateway(config)


# Factories import what they make: a node without SIP trunks never loads the SIP stack.
GATEWAYS: dict[str, Callable[[Config], Gateway]] = {
    "sip": _sip,
    "smpp": _smpp,
    "smtp": _smtp,
    "loopback": _loopback,
}
