from collections.abc import AsyncIterator

import pytest

from minuet.agent.drivers.process.driver import ProcessDriver
from tests.given.runtime import Installation, installation


@pytest.fixture
async def given() -> AsyncIterator[Installation]:
    async with installation() as made:
        yield made


@pytest.fixture
async def driver(given: Installation) -> AsyncIterator[ProcessDriver]:
    opened = await ProcessDriver.open(given.client(), given.plane)
    yield opened
    await opened.close()
