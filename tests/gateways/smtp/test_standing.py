"""Which routes of a domain come first after some have failed: pure, time handed in."""

from __future__ import annotations

from gateways.smtp.records import Route
from gateways.smtp.standing import AVOID_S, Detours, Standing

PASSED_S = 18_000.0


def routes(number: int) -> list[Route]:
    return [Route(host=f"192.0.2.{n}", port=25, name=f"mx{n}", verify=False) for n in range(number)]


def names(detours: Detours, known: list[Route], now: float) -> list[str]:
    return [route.name for route in detours.order(known, now)]


def test_who_failed_comes_last_for_a_minute_unless_it_works_before() -> None:
    detours, known = Detours(PASSED_S), routes(3)
    assert names(detours, known, 0.0) == ["mx0", "mx1", "mx2"]
    detours.failed(known[0], 0.0)
    detours.failed(known[1], 1.0)
    assert names(detours, known, 2.0) == ["mx2", "mx0", "mx1"]
    detours.good(known[1])
    assert names(detours, known, 2.0) == ["mx1", "mx2", "mx0"]
    assert not detours.none(AVOID_S - 1)
    assert names(detours, known, AVOID_S) == ["mx0", "mx1", "mx2"]
    assert detours.none(AVOID_S)


def test_where_more_routes_are_known_than_a_mail_is_tried_over_all_have_their_turn() -> None:
    detours, known, first = Detours(PASSED_S), routes(7), list[list[str]]()
    for now in (0.0, 3_600.0, 7_200.0, 10_800.0):
        tried = detours.order(known, now)[:3]
        first.append([route.name for route in tried])
        for route in tried:
            detours.failed(route, now)
        detours.passed(tried, now)
    assert first[:2] == [["mx0", "mx1", "mx2"], ["mx3", "mx4", "mx5"]]
    assert first[2:] == [["mx6", "mx0", "mx1"], ["mx2", "mx3", "mx4"]]  # the longest ago


def test_what_else_is_behind_when_a_mail_is_given_up_stays_so() -> None:
    """It was tried over them, one after another."""
    detours, known = Detours(PASSED_S), routes(4)
    detours.order(known, 0.0)
    detours.failed(known[0], 0.0)
    detours.failed(known[1], 1.0)
    detours.passed((known[2],), 2.0)
    assert names(detours, known, PASSED_S) == ["mx3", "mx0", "mx1", "mx2"]


def test_a_domain_with_few_routes_has_its_best_first_again_soon() -> None:
    """A mail is tried over all of them in any case."""
    detours, known = Detours(PASSED_S), routes(3)
    detours.order(known, 0.0)
    for route in known:
        detours.failed(route, 0.0)
    detours.passed(known, 0.0)
    assert names(detours, known, AVOID_S) == ["mx0", "mx1", "mx2"]


def test_nothing_is_remembered_that_a_new_one_would_not_know() -> None:
    standing = Standing(0.5, PASSED_S, 0.0)
    assert standing.blank(0.0)
    assert standing.bucket.wait_s(0.0) == 0.0
    assert (standing.blank(1.9), standing.blank(2.0)) == (False, True)
    standing.detours.failed(routes(1)[0], 0.0)
    assert (standing.blank(AVOID_S - 1), standing.blank(AVOID_S)) == (False, True)
