"""Wires the agent and runs it: `python -m minuet agent --settings FILE`.

Nothing here waits for the control plane: what the inventory holds is made true
at once, and the link comes when it can.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from minuet import __version__
from minuet.agent.drivers.memory import MemoryDriver
from minuet.agent.drivers.port import Driver
from minuet.agent.gateway import GatewayHost
from minuet.agent.inventory import Inventory
from minuet.agent.link import Link
from minuet.agent.logs import LogStore
from minuet.agent.observe import Observations
from minuet.agent.reconcile import Reconciler
from minuet.agent.settings import AgentSettings
from minuet.infra import settings as settings_files
from minuet.infra import telemetry
from minuet.kernel.clock import SystemClock
from minuet.kernel.errors import MinuetError, invalid_field
from minuet.launcher.client import Launcher
from minuet.protocol import sealing
from minuet.protocol.observed import PlaneReport


def main(settings_file: Path) -> int:
    """Runs until SIGTERM or SIGINT; returns 1, with a line on stderr, when it cannot start."""
    try:
        run(settings_file)
    except MinuetError as error:
        hint = f" ({error.hint})" if error.hint else ""
        sys.stderr.write(f"agent: {error.message}{hint}\n")
        return 1
    return 0


def run(path: Path) -> None:
    """Runs until SIGTERM or SIGINT; raises the error family when it cannot start."""
    telemetry.configure("agent")
    asyncio.run(_serve(settings_files.load(AgentSettings, path)))


async def _serve(settings: AgentSettings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    agent = await _Agent.make(settings)
    tasks: list[asyncio.Task[object]] = [
        asyncio.create_task(agent.reconciler.run()),
        asyncio.create_task(agent.link.run()),
    ]
    stopping: asyncio.Task[object] = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in done - {stopping}:
        task.result()


class _Agent:
    """The wired parts."""

    def __init__(self, reconciler: Reconciler, link: Link) -> None:
        self.reconciler = reconciler
        self.link = link

    @classmethod
    async def make(cls, settings: AgentSettings) -> _Agent:
        inventory = Inventory(settings.inventory)
        gateway = GatewayHost(settings.gateway, settings.gateway_address, settings.gateway_port, envoy=settings.envoy)
        driver, sealing_key = await _driver(settings)
        clock = SystemClock()
        observations = Observations(clock)
        reconciler = Reconciler(inventory, driver, gateway, clock, observations.note)

        async def report() -> PlaneReport:
            return PlaneReport(
                isolation=driver.isolation,
                gateway_ready=await gateway.ready(),
                gateway_url=settings.gateway_url or f"http://{settings.gateway_address}:{settings.gateway_port}",
                agent_version=__version__,
                warnings=tuple(inventory.alarms[-20:]),
            )

        link = Link(
            settings,
            inventory,
            observations,
            LogStore(settings.logs),
            sealing_key=sealing_key,
            report=report,
            on_desired=reconciler.poke,
        )
        return cls(reconciler, link)


async def _driver(settings: AgentSettings) -> tuple[Driver, str]:
    """The driver by its name, and the public key that secrets for this data plane are sealed with."""
    if settings.driver == "memory":
        return MemoryDriver(), sealing.sealing_public_key(sealing.new_sealing_key())
    from minuet.agent.drivers.process import ProcessDriver

    if settings.launcher is None:
        raise invalid_field("launcher", "is required by the process driver")
    launcher = Launcher(settings.launcher)
    await launcher.start_gateway()
    driver = await ProcessDriver.open(launcher, settings.directory)
    return driver, driver.sealing_key
