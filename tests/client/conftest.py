"""A server with prepared answers, and an API that talks to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from minuet.client.api import Api
from minuet.client.contexts import Context
from tests.given import recorded
from tests.given.recorded import Recorded


@pytest.fixture
def server() -> Iterator[Recorded]:
    with recorded.serving() as started:
        yield started


@pytest.fixture
def api(server: Recorded) -> Iterator[Api]:
    client = Api(Context(server.url, "token-1"))
    yield client
    client.close()
