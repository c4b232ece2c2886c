"""schemathesis against a running node: no 5xx, no answer that the document does not know.

It runs as its users run it: the command, in a process of its own, told nothing but the URL of
``/openapi.json`` and a token. By hand, for longer: ``python -m tests.api.test_schemathesis --seed 7
--max-examples 50`` (any options of ``schemathesis run``).
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import orjson
import pytest
import trio

from engine.model import Permission, User
from engine.store.base import Query
from tests.api.belongings import belongings
from tests.api.node import Node, running_node
from tests.api.schemathesis_hooks import HIGHEST_ID

ROOT = Path(__file__).parents[2]
COMMAND = Path(sys.executable).with_name("schemathesis")
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_headers_conformance", "response_schema_conformance",
)  # fmt: skip
DEADLINE_S = 280.0
BY_HAND_S = 3600.0
# Ends the token that a request carries: tried with a token of its own, after all the others.
CANCEL = "/authenticate/cancel$"


class Report(msgspec.Struct):
    """What schemathesis says of a run."""

    exit_code: int
    operations: dict[str, Any]
    test_cases: dict[str, int]
    warnings: dict[str, list[Any]]


@asynccontextmanager
async def populated_node(folder: Path) -> AsyncIterator[Node]:
    """A node with a few rows of every kind."""
    async with running_node(folder) as node:
        for number in range(HIGHEST_ID):
            await belongings(node, f"owner{number}")
        yield node


async def token_for_everything(node: Node, name: str) -> str:
    """A token of a user that holds every permission itself: no change of a role takes it away."""
    permissions = await node.engine.store.find(Permission, Query())
    names = tuple(sorted(permission.name for permission in permissions))
    user = await node.engine.store.insert(User(username=name, permissions=names))
    assert user.id > HIGHEST_ID
    return node.tokens.issue(user)


async def run(
    node: Node, folder: Path, token: str, *options: str, deadline_s: float = DEADLINE_S
) -> Report:
    """Let schemathesis loose on the node."""
    report = folder / "report.json"
    url = f"http://127.0.0.1:{node.port}"
    with trio.fail_after(deadline_s):
        ended = await trio.run_process(
            [
                str(COMMAND), "run", f"{url}/openapi.json", "--url", url,
                "--header", f"Authorization: Bearer {token}", "--checks", ",".join(CHECKS),
                "--continue-on-failure", "--suppress-health-check", "all", "--no-color",
                "--generation-database", "none", "--request-timeout", "20",
                "--report", "json", "--report-json-path", str(report), *options,
            ],
            cwd=folder,
            env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.api.schemathesis_hooks",
                 "PYTHONPATH": str(ROOT)},
            capture_stdout=True, capture_stderr=True, check=False,
        )  # fmt: skip
    said = ended.stdout.decode() + ended.stderr.decode()
    sys.stdout.write(said)
    assert report.exists(), said
    return msgspec.json.decode(report.read_bytes(), type=Report)


@pytest.mark.slow
async def test_no_request_breaks_the_server_or_surprises(tmp_path: Path) -> None:
    async with populated_node(tmp_path) as node:
        token = await token_for_everything(node, "fuzzer")
        report = await run(
            node, tmp_path, token, "--exclude-path-regex", CANCEL, "--seed", "1",
            "--phases", "examples,fuzzing", "--max-examples", "4",
        )  # fmt: skip
        assert_sound(report)
        # Nearly every call reached what it is about, as somebody who may.
        assert all(name.endswith("/authenticate") for name in report.warnings["missing_auth"])
        unreached = report.warnings["base_url_mismatch"]
        assert len(unreached) < report.operations["total"] // 10, unreached
        assert await works(node, token)


@pytest.mark.slow
async def test_no_way_to_end_a_token_breaks_the_server(tmp_path: Path) -> None:
    async with populated_node(tmp_path) as node:
        token = await token_for_everything(node, "leaver")
        report = await run(
            node, tmp_path, token, "--include-path-regex", CANCEL, "--seed", "1",
            "--max-examples", "10",
        )  # fmt: skip
        assert_sound(report)
        assert not await works(node, token)


def assert_sound(report: Report) -> None:
    assert report.exit_code == 0
    assert report.test_cases["with_failures"] == report.test_cases["errored"] == 0
    assert report.operations["tested"] == report.operations["selected"] > 0


async def works(node: Node, token: str) -> bool:
    """Whether the node is sound and knows the token."""
    client = await node.speaking(Authorization=f"Bearer {token}")
    health: httpx.Response = await client.get("/healthz")
    assert health.status_code == 200, orjson.loads(health.content)
    return (await client.get("/contacts")).status_code == 200


async def _by_hand(options: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        async with populated_node(Path(folder)) as node:
            token = await token_for_everything(node, "fuzzer")
            chosen = ("--exclude-path-regex", CANCEL, *options)
            report = await run(node, Path(folder), token, *chosen, deadline_s=BY_HAND_S)
            return report.exit_code


if __name__ == "__main__":
    sys.exit(trio.run(_by_hand, sys.argv[1:]))
