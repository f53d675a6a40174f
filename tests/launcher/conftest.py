from collections.abc import AsyncIterator

import pytest

from tests.given.runtime import Installation, installation


@pytest.fixture
async def given() -> AsyncIterator[Installation]:
    async with installation() as made:
        yield made
