"""The bus, the counters, the configuration."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from engine.bus import Bus
from engine.config import Config, load
from engine.errors import InvalidError
from engine.events import CampaignChanged
from engine.model import CampaignStatus
from engine.stats import Histogram, Rate

EVENT = CampaignChanged(
    at=datetime(2026, 1, 1, tzinfo=UTC), campaign_id=1, status=CampaignStatus.RUNNING
)


async def test_every_subscriber_gets_every_event_in_order() -> None:
    bus = Bus()
    with bus.subscribe() as one, bus.subscribe() as two:
        bus.publish(EVENT)
        with trio.fail_after(1):
            assert await one.get() is EVENT
            assert await two.get() is EVENT
    assert not bus.listening


async def test_a_slow_subscriber_is_told_what_it_missed_and_holds_nobody_back() -> None:
    bus = Bus()
    with bus.subscribe(size=2) as slow, bus.subscribe(size=10) as quick:
        for _ in range(5):
            bus.publish(EVENT)
        assert slow.missed == 3
        assert quick.missed == 0
        assert bus.statistics() == {"subscribers": 2, "published": 5, "missed": 3, "queued": 7}
    assert bus.statistics()["missed"] == 3


@given(st.lists(st.floats(1e-4, 100), min_size=1, max_size=200), st.floats(0.01, 1))
def test_quantiles_are_right_within_a_bucket(durations: list[float], part: float) -> None:
    histogram = Histogram()
    for duration in durations:
        histogram.add(duration)
    exact = sorted(durations)[max(0, math.ceil(part * len(durations)) - 1)]
    assert exact * 0.99 <= histogram.quantile_s(part) <= exact * 1.06
    assert histogram.quantile_s(1.0) == pytest.approx(max(durations))


def test_rate_is_the_mean_of_full_seconds() -> None:
    rate = Rate()
    for step in range(100):
        rate.count(step / 10)
    assert rate.per_s(10.0) == 10.0
    assert rate.per_s(15.0) == 5.0
    assert rate.per_s(60.0) == 0.0


def test_defaults_file_environment_options_in_that_order(tmp_path: Path) -> None:
    file = tmp_path / "outspool.toml"
    file.write_text('[http]\nport = 1\nhost = "::1"\n[dial]\nring_timeout_s = 5\n')
    config = load(
        file,
        {"OUTSPOOL_HTTP_PORT": "2", "OUTSPOOL_DIAL_ALLOWED_PREFIXES": "+1,+49"},
        {"http": {"host": "127.0.0.9"}},
    )
    assert (config.http.port, config.http.host) == (2, "127.0.0.9")
    assert config.dial.ring_timeout_s == 5
    assert config.dial.allowed_prefixes == ("+1", "+49")
    assert load(None, {}, {}) == Config()


@pytest.mark.parametrize("text", ["[http]\nprot = 1\n", "[http]\nport = 'x'\n", "[", "[web]\n"])
def test_a_wrong_setting_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "outspool.toml"
    file.write_text(text)
    with pytest.raises(InvalidError):
        load(file, {}, {})


def test_mail_settings_come_from_the_environment_and_keep_their_secret() -> None:
    given = {
        "OUTSPOOL_SMTP_DNS_SERVERS": "127.0.0.1:53, ::1",
        "OUTSPOOL_SMTP_LISTEN_PASSWORD": "pw",
    }
    config = load(None, given, {})
    assert config.smtp.dns_servers == ("127.0.0.1:53", "::1")
    assert config.smtp.listen_password == "pw"  # noqa: S105
    assert "pw" not in repr(config)


def test_a_time_zone_nobody_knows_is_said_at_once() -> None:
    with pytest.raises(InvalidError, match="timezone"):
        load(None, {"OUTSPOOL_NODE_TIMEZONE": "Mars/Olympus"}, {})
