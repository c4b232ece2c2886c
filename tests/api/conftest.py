from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.api.node import Node, running_node
from tests.api.recorder import RECORDER, table

TABLE = table()


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with running_node(tmp_path) as running:
        yield running


@pytest.fixture(autouse=True)
def what_the_endpoint_table_says(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test asks what api/ictcore/ENDPOINTS.md says that it asks."""
    RECORDER.begin()
    yield
    asked = RECORDER.end(request.node.nodeid)
    named = {endpoint for endpoint, test in TABLE.items() if test == request.node.nodeid}
    assert named <= asked, "python -m tests.api.endpoints writes the table anew"
