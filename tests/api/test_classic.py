"""The classic mount ``/api``: what the clients of deployed ICTCore servers were seen to need.

The numbers of the sections are those of the requirements in specs/ictcore-client-calls.md part 0;
the clients' own flows are in ``tests/acceptance``.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from api.ictcore import CLASSIC, ICTCORE
from api.ictcore.classic import Classic
from api.routing import Changed, Created, Done, Item, Reply, Rows, Status, Value
from engine.events import SpoolChanged
from engine.model import SpoolStatus
from tests.api.node import PASSWORD, Node, running_node, sound
from tests.support.engine import add_provider

DEADLINE_S = 10.0
DIGITS = re.compile(rb"[1-9][0-9]*")
_PARAMETER = re.compile(r"\{(\w+)\}")


def bare_integer(response: httpx.Response) -> int:
    """The id of something made, read as strictly as clients do: digits and nothing around them."""
    assert response.status_code == 200, response.text
    assert DIGITS.fullmatch(response.content), response.content
    return int(response.content)


def answered(response: httpx.Response) -> Any:
    """JSON of an exact 200 that is not empty."""
    assert response.status_code == 200, response.text
    assert response.content
    assert not response.content.endswith(b"\n")
    return response.json()


def scalars(value: Any) -> list[Any]:
    """Everything in ``value`` that is no map and no list."""
    if isinstance(value, dict):
        return [leaf for inner in value.values() for leaf in scalars(inner)]
    if isinstance(value, list):
        return [leaf for inner in value for leaf in scalars(inner)]
    return [value]


def assert_strings(value: Any) -> None:
    assert [leaf for leaf in scalars(value) if not isinstance(leaf, str | None)] == []


class Scene:
    """One of everything, made below ``/api``; ``ids`` by the name of the path's parameter."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.client = node.client
        self.ids: dict[str, int] = {}

    async def create(self, path: str, **body: Any) -> int:
        return bare_integer(await self.client.post(f"/api{path}", json=body))

    async def fill(self) -> Scene:
        ids = self.ids
        await add_provider(self.node.engine)
        ids["contact_id"] = await self.create("/contacts", phone="100", first_name="Ada")
        ids["group_id"] = await self.create("/groups", name="people")
        link = f"/api/contacts/{ids['contact_id']}/link/{ids['group_id']}"
        answered(await self.client.put(link, content=b"[]"))
        ids["recording_id"] = await self.create("/messages/recordings", name="message")
        media = f"/api/messages/recordings/{ids['recording_id']}/media"
        answered(await self.client.put(media, content=sound("WAV", rate=8000, channels=1)))
        ids["program_id"] = await self.create(
            "/programs/voicemessage", name="call", recording_id=str(ids["recording_id"])
        )
        ids["provider_id"] = await self.create("/providers", name="trunk", type="SIP", host="a.b")
        ids["account_id"] = await self.create("/accounts", username="600", settings={"n": 5})
        ids["transmission_id"] = await self.create(
            "/transmissions", program_id=str(ids["program_id"]), contact_id=str(ids["contact_id"])
        )
        ids["campaign_id"] = await self.create(
            "/campaigns", program_id=str(ids["program_id"]), group_id=str(ids["group_id"]), cpm=10
        )
        return self

    def path(self, template: str) -> str:
        return "/api" + _PARAMETER.sub(lambda name: str(self.ids[name[1]]), template)

    async def get(self, template: str) -> Any:
        return answered(await self.client.get(self.path(template)))


@pytest.fixture
async def scene(node: Node) -> Scene:
    return await Scene(node).fill()


# --- the translator alone ------------------------------------------------------------------------

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.lists(st.dictionaries(st.text(), JSON_VALUES)))
def test_rows_hold_strings_and_nulls_only(rows: list[dict[str, Any]]) -> None:
    spelled = Classic().spell(Rows(rows))
    assert_strings(spelled)
    assert len(scalars(spelled)) == len(scalars(rows))
    assert [list(row) for row in spelled] == [list(row) for row in rows]


class Seen(msgspec.Struct):
    """One field of every kind."""

    number: int
    share: float
    flag: bool
    word: str
    nothing: int | None
    inner: list[dict[str, int]]
    settings: dict[str, Any]
    expires_in: int


def test_an_object_is_strings_but_for_what_clients_read_as_numbers() -> None:
    seen = Seen(7, 0.5, True, "a/b", None, [{"a": 1}], {"n": 5, "on": True}, 60)
    assert Classic().spell(Item(seen)) == {
        "number": "7",
        "share": "0.5",
        "flag": "1",
        "word": "a/b",
        "nothing": None,
        "inner": [{"a": "1"}],
        "settings": {"n": 5, "on": True},
        "expires_in": 60,
    }


@pytest.mark.parametrize(
    ("reply", "spelled"),
    [
        (Created("contact_id", 17), 17),
        (Created("recording_id", 7, fresh=False), "7"),
        (Status("completed"), "completed"),
        (Value("sendcover"), True),
        (Value(None), True),
        (Changed({"account_id": 1}, 9), 9),
        (Changed({"account_id": 1}), True),
        (Done(), True),
        (Done(3), "3"),
        (Rows([]), []),
    ],
)
def test_every_other_reply(reply: Reply, spelled: Any) -> None:
    found = Classic().spell(reply)
    assert (found, type(found)) == (spelled, type(spelled))


def test_both_mounts_have_every_path() -> None:
    guides = {(route.verb, route.path) for route in ICTCORE.routes}
    classic = [(route.verb, route.path) for route in CLASSIC.routes]
    assert set(classic) - guides == {
        ("GET", "/campaigns/{campaign_id}/start"),
        ("GET", "/campaigns/{campaign_id}/stop"),
    }
    assert guides <= set(classic)
    assert len(set(classic)) == len(classic)


# --- replies (1, 2, 3, 12, 13, 17, 19) -----------------------------------------------------------


async def test_media_answers_the_id_as_text(scene: Scene) -> None:
    media = scene.path("/messages/recordings/{recording_id}/media")
    for verb in ("PUT", "POST"):
        response = await scene.client.request(verb, media, content=sound("WAV", rate=8000))
        assert answered(response) == str(scene.ids["recording_id"])


async def test_every_list_is_of_strings(scene: Scene) -> None:
    sent = scene.path("/transmissions/{transmission_id}/send")
    scene.ids["spool_id"] = bare_integer(await scene.client.post(sent))
    lists = [route for route in CLASSIC.routes if route.answer is Rows and route.verb == "GET"]
    named = [r for r in lists if set(_PARAMETER.findall(r.path)) <= set(scene.ids)]
    filled = 0
    for route in named:
        rows = await scene.get(route.path)
        assert isinstance(rows, list)
        assert_strings(rows)
        filled += bool(rows)
    assert filled >= 8


async def test_nested_rows_are_of_strings_too(scene: Scene) -> None:
    (row,) = await scene.get("/transmissions")
    assert row["contact"]["contact_id"] == row["contact_id"] == str(scene.ids["contact_id"])
    assert isinstance(row["account"]["active"], str)


@pytest.mark.parametrize(
    "kind",
    ["contact", "group", "messages/recording", "program", "provider", "account", "transmission"],
)
async def test_an_object_is_of_strings(scene: Scene, kind: str) -> None:
    folder, kind = f"/{kind}s", kind.removeprefix("messages/")
    shown = await scene.get(f"{folder}/{{{kind}_id}}")
    assert shown[f"{kind}_id"] == str(scene.ids[f"{kind}_id"])
    assert_strings({key: value for key, value in shown.items() if key != "settings"})


async def test_settings_stay_what_they_were(scene: Scene) -> None:
    assert (await scene.get("/accounts/{account_id}"))["settings"] == {"n": 5}


@pytest.mark.parametrize("kind", ["transmission", "campaign", "contact", "group", "provider"])
async def test_delete_answers_true(scene: Scene, kind: str) -> None:
    if kind == "group":
        await scene.client.delete(scene.path("/campaigns/{campaign_id}"))
    if kind == "contact":
        await scene.client.delete(scene.path("/transmissions/{transmission_id}"))
    one = scene.path(f"/{kind}s/{{{kind}_id}}")
    assert answered(await scene.client.delete(one)) is True
    assert (await scene.client.get(one)).status_code == 404


async def test_a_status_is_a_word(scene: Scene) -> None:
    assert await scene.get("/transmissions/{transmission_id}/status") == "pending"


@pytest.mark.parametrize("verb", ["GET", "PUT"])
async def test_start_and_stop_answer_the_id_as_text(scene: Scene, verb: str) -> None:
    for deed in ("start", "stop"):
        path = scene.path(f"/campaigns/{{campaign_id}}/{deed}")
        assert answered(await scene.client.request(verb, path)) == str(scene.ids["campaign_id"])


async def test_starting_by_get_is_the_classic_mounts_alone(scene: Scene) -> None:
    path = scene.path("/campaigns/{campaign_id}/start").removeprefix("/api")
    assert (await scene.client.get(path)).status_code == 404
    assert (await scene.get("/campaigns/{campaign_id}"))["status"] == "new"


async def test_an_import_answers_the_groups_id_as_text(scene: Scene) -> None:
    path = scene.path("/groups/{group_id}/csv")
    response = await scene.client.post(
        path, content=b"200\n300\n", headers={"Content-Type": "text/csv"}
    )
    assert answered(response) == str(scene.ids["group_id"])
    assert (await scene.get("/groups/{group_id}"))["contact_total"] == "3"


async def test_statistics_are_counts_as_text(scene: Scene) -> None:
    counts = await scene.get("/statistics")
    assert_strings(counts)
    assert counts["contact_total"] == "1"
    assert counts["campaign_total"] == "1"


async def test_links_answer_something(scene: Scene) -> None:
    link = "/contacts/{contact_id}/link/{group_id}"
    assert answered(await scene.client.delete(scene.path(link))) is True
    linked = answered(await scene.client.put(scene.path(link)))
    assert linked["contact_id"] == str(scene.ids["contact_id"])


async def test_lists_are_in_the_order_of_ids(scene: Scene) -> None:
    for phone in range(20):
        await scene.create("/contacts", phone=str(phone))
    ids = [int(row["contact_id"]) for row in await scene.get("/contacts")]
    assert ids == sorted(ids)
    assert len(ids) == 21


async def test_pages_are_said_in_headers(scene: Scene) -> None:
    await scene.create("/contacts", phone="2")
    first = await scene.client.get("/api/contacts?limit=1")
    assert first.headers["x-total-count"] == "2"
    match = re.fullmatch(r'<(.+)>; rel="next"', first.headers["link"])
    assert match
    (row,) = answered(await scene.client.get(match[1]))
    assert row["phone"] == "2"


# --- logging in (4, 5, 6) ------------------------------------------------------------------------


async def test_what_logging_in_answers(node: Node) -> None:
    nobody = await node.speaking()
    credentials = {"username": "admin", "password": PASSWORD, "device": "x"}
    shown = answered(await nobody.post("/api/authenticate", json=credentials))
    assert shown["token"] == shown["access_token"]
    assert shown["token_type"] == "Bearer"  # noqa: S105 - OAuth's word, no secret
    assert shown["scope"] == "All"
    assert shown["expires_in"] == node.engine.config.http.token_lifetime_s
    assert isinstance(shown["user_id"], str)
    for name in ("first_name", "last_name", "email", "phone", "company", "active"):
        assert isinstance(shown[name], str | None)
    payload = shown["token"].split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert {"user_id", "username", "is_admin"} <= set(claims)


async def test_a_token_can_be_given_back(node: Node) -> None:
    nobody = await node.speaking()
    credentials = {"username": "admin", "password": PASSWORD}
    token = answered(await nobody.post("/api/authenticate", json=credentials))["token"]
    client = await node.speaking(Authorization=f"Bearer {token}")
    assert answered(await client.get("/api/contacts")) == []
    assert answered(await client.post("/api/authenticate/cancel")) is True
    assert (await client.get("/api/contacts")).status_code == 401


@pytest.mark.parametrize(
    ("body", "message"),
    [({}, "No valid username found"), ({"username": "admin", "password": "wrong"}, "")],
)
async def test_a_refused_login_says_so(node: Node, body: dict[str, str], message: str) -> None:
    nobody = await node.speaking()
    response = await nobody.post("/api/authenticate", json=body)
    assert_error(response, 401)
    assert response.json()["error"]["message"].startswith(message)
    assert "Basic realm=" in response.headers["www-authenticate"]


# --- bodies (8, 9, 10) ---------------------------------------------------------------------------


async def test_an_empty_text_is_nothing_given(scene: Scene) -> None:
    campaign_id = await scene.create(
        "/campaigns",
        program_id=str(scene.ids["program_id"]),
        group_id=str(scene.ids["group_id"]),
        cpm="",
        try_allowed="",
        delay="",
        status="",
        account_id="",
    )
    shown = answered(await scene.client.get(f"/api/campaigns/{campaign_id}"))
    assert shown["status"] == "new"
    assert shown["cpm"] == "2"
    contact_id = await scene.create("/contacts", phone="1", email="", description="", is_print=1)
    assert answered(await scene.client.get(f"/api/contacts/{contact_id}"))["email"] == ""


async def test_a_create_with_an_id_in_it_creates(scene: Scene) -> None:
    contact_id = scene.ids["contact_id"]
    created = await scene.create("/contacts", contact_id=contact_id, phone="9", user_id=99)
    assert created != contact_id
    assert (await scene.get("/contacts/{contact_id}"))["phone"] == "100"
    shown = answered(await scene.client.get(f"/api/contacts/{created}"))
    assert shown["user_id"] != "99"


@pytest.mark.parametrize(
    "kind",
    [
        "contact", "group", "messages/recording", "program", "provider", "account", "transmission",
        "campaign",
    ],
)  # fmt: skip
async def test_an_object_may_be_sent_back_as_it_was_read(scene: Scene, kind: str) -> None:
    path = f"/{kind}s/{{{kind.removeprefix('messages/')}_id}}"
    before = await scene.get(path)
    response = await scene.client.put(scene.path(path), json=before)
    after = answered(response)
    for shown in (before, after):
        shown.pop("last_updated")
    assert after == before


async def test_retry_delays_may_be_sent_back(scene: Scene) -> None:
    one = scene.path("/campaigns/{campaign_id}")
    delays = {"busy": 5, "no_answer": 7.5}
    shown = answered(await scene.client.put(one, json={"retry_delays": delays}))["retry_delays"]
    again = answered(await scene.client.put(one, json={"retry_delays": shown}))["retry_delays"]
    assert again == shown


async def test_an_object_of_what_was_sent_may_be_sent_back(scene: Scene) -> None:
    path = "/transmissions/{transmission_id}"
    with scene.node.engine.bus.subscribe() as events, trio.fail_after(DEADLINE_S):
        await scene.client.post(scene.path(path + "/send"))
        while not _ended(await events.get()):
            pass
    before = await scene.get(path)
    after = answered(await scene.client.put(scene.path(path), json={**before, "title": "called"}))
    assert after["title"] == "called"


def _ended(event: object) -> bool:
    return isinstance(event, SpoolChanged) and event.status is SpoolStatus.COMPLETED


# --- refusals (11) -------------------------------------------------------------------------------


def assert_error(response: httpx.Response, status: int) -> None:
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message"}
    assert body["error"]["code"] == status
    assert body["error"]["message"]


async def test_refusals_have_the_deployed_form(scene: Scene) -> None:
    client = scene.client
    nobody = await scene.node.speaking()
    assert_error(await nobody.get("/api/contacts"), 401)
    assert_error(await client.get("/api/contacts/999"), 404)
    assert_error(await client.post("/api/transmissions", json={}), 412)
    empty = scene.path("/messages/recordings/{recording_id}/media")
    assert_error(await client.put(empty, content=b""), 411)
    assert_error(await client.put(empty, content=b"no sound at all"), 415)
    sent = scene.path("/transmissions/{transmission_id}/send")
    bare_integer(await client.post(sent))
    reader = await scene.node.user("somebody")
    assert_error(await reader.get("/api/contacts"), 403)


async def test_what_nobody_foresaw_tells_nothing(scene: Scene, tmp_path: Path) -> None:
    for path in (tmp_path / "media").rglob("*.wav"):
        path.unlink()
    response = await scene.client.get(scene.path("/messages/recordings/{recording_id}/media"))
    assert_error(response, 500)
    assert response.json()["error"]["message"] == "Internal server error"


# --- downloads (20) ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/recordings/{recording_id}/media", "recording_1.wav"),
        ("/messages/recordings/{recording_id}/media", "recording_1.wav"),
        ("/groups/{group_id}/csv", "group_1.csv"),
        ("/groups/sample/csv", "contact_sample.csv"),
    ],
)
async def test_a_download_has_a_name(scene: Scene, path: str, name: str) -> None:
    response = await scene.client.get(scene.path(path))
    assert response.status_code == 200
    assert response.content
    assert response.headers["content-disposition"] == f'attachment; filename="{name}"'


# --- owners (21) ---------------------------------------------------------------------------------


async def test_owners_compare_equal_between_lists(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        bare_integer(await node.client.post("/api/dids", json={"username": "d", "phone": "1"}))
        (did,) = answered(await node.client.get("/api/dids"))
        users = answered(await node.client.get("/api/users"))
        assert did["created_by"] in [user["user_id"] for user in users]
