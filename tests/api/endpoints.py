"""``python -m tests.api.endpoints`` writes the endpoint table anew, from what the tests ask.

Every test of the API runs once. An endpoint keeps its test as long as that test asks it; else it
gets the one that asks least besides; those in the file of its resource come first.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

import pytest

from tests.api.guide import ENDPOINTS
from tests.api.recorder import BY_TEST, TABLE, Endpoint, table

# They ask everything, generated from the route tables: naming them would say nothing.
GENERATED = ("test_permissions_matrix", "test_ownership", "test_schemathesis", "test_openapi")

_HEAD = """\
# The endpoints of ICTCore's API guide, and the test that exercises each

Written by `python -m tests.api.endpoints` from what the tests really ask a running node over HTTP;
checked whenever a test that is named here runs. All of them are below `/api` too; what we add
beside them is in `/docs` of a running node.

The guide's remark that deletes may also be asked as `GET` holds nowhere in ICTCore and is not
offered: a `GET` must not delete. Its `text_id` as the answer of `POST /transmissions` is a slip;
the answer is `transmission_id`. `cpm` is per minute.

| endpoint | test |
|---|---|
"""


def chosen(
    asked: Mapping[str, set[Endpoint]], before: Mapping[Endpoint, str]
) -> dict[Endpoint, str]:
    """The test of each endpoint that any test asks."""
    candidates = {
        test: seen for test, seen in asked.items() if not any(name in test for name in GENERATED)
    }
    found: dict[Endpoint, str] = {}
    for endpoint in ENDPOINTS:
        tests = [test for test, seen in candidates.items() if endpoint in seen]
        tests = [test for test in tests if _at_home(endpoint, test)] or tests
        if tests:
            kept = before.get(endpoint, "")
            best = min(tests, key=lambda test: (len(candidates[test]), test))
            found[endpoint] = kept if kept in tests else best
    return found


def _at_home(endpoint: Endpoint, test: str) -> bool:
    """Whether the test is in the file of the endpoint's resource."""
    words = endpoint[1].split("/")
    subject = words[2] if words[1] == "messages" else words[1]
    return f"/test_{'login' if subject == 'authenticate' else subject}" in test


def written(rows: Mapping[Endpoint, str]) -> str:
    """The table as a file."""
    lines = (f"| `{verb} {path}` | `{rows[verb, path]}` |" for verb, path in ENDPOINTS
             if (verb, path) in rows)  # fmt: skip
    return _HEAD + "\n".join(lines) + "\n"


def main() -> int:
    """Run the tests of the API, write the table; 1 where an endpoint has no test."""
    ignored = [f"--ignore=tests/api/{name}.py" for name in GENERATED]
    status = pytest.main(["tests/api", "-q", "-p", "no:cacheprovider", *ignored])
    rows = chosen(BY_TEST, table() if TABLE.exists() else {})
    TABLE.write_text(written(rows))
    missing = [endpoint for endpoint in ENDPOINTS if endpoint not in rows]
    for verb, path in missing:
        sys.stderr.write(f"no test asks {verb} {path}\n")
    return int(status) or bool(missing)


if __name__ == "__main__":
    sys.exit(main())
