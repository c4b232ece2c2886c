"""Every pair of status and event is either in the table or refused."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from engine import states
from engine.errors import IllegalTransitionError
from engine.model import CampaignStatus, SpoolStatus, TaskStatus, TransmissionStatus

PAIRS = [
    pair
    for kind in (CampaignStatus, SpoolStatus, TaskStatus, TransmissionStatus)
    for pair in itertools.product(kind, states.Event)
]


@pytest.mark.parametrize(("status", "event"), PAIRS)
def test_every_pair(status: Any, event: states.Event) -> None:
    tables: dict[type, Any] = {
        CampaignStatus: states.CAMPAIGN,
        SpoolStatus: states.SPOOL,
        TransmissionStatus: states.TRANSMISSION,
        TaskStatus: states.TASK,
    }
    if (status, event) in tables[type(status)]:
        assert states.may(status, event)
        assert states.advance(status, event) in type(status)
    else:
        assert not states.may(status, event)
        with pytest.raises(IllegalTransitionError, match=event.value):
            states.advance(status, event)


def test_what_is_final_stays_final() -> None:
    for event in states.Event:
        assert not states.may(SpoolStatus.COMPLETED, event)
        assert not states.may(SpoolStatus.FAILED, event)
        assert not states.may(TransmissionStatus.COMPLETED, event)
        assert not states.may(TransmissionStatus.INVALID, event)
