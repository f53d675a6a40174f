"""Puts the control plane together, once, by plain calls; what is connected to what can be read here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fastapi import APIRouter

from minuet.control.builds import api as builds_api
from minuet.control.builds import builder_api
from minuet.control.builds import controller as builds_controller
from minuet.control.builds import service as builds
from minuet.control.builds.logs import BuildLogs
from minuet.control.catalog import api as catalog_api
from minuet.control.catalog import controller as catalog_controller
from minuet.control.catalog import credentials_api
from minuet.control.catalog import service as catalog
from minuet.control.catalog.service import Rules
from minuet.control.configuration import api as configuration_api
from minuet.control.configuration import service as configuration
from minuet.control.delivery import api as delivery_api
from minuet.control.delivery import controller as delivery_controller
from minuet.control.delivery import service as delivery
from minuet.control.delivery.controller import Deliverer
from minuet.control.delivery.observations import Observations
from minuet.control.delivery.queries import Summaries
from minuet.control.delivery.streams import Streams
from minuet.control.identity import api as identity_api
from minuet.control.identity.service import Authenticator
from minuet.control.planes import api as planes_api
from minuet.control.planes import service as planes
from minuet.control.planes.link import Links
from minuet.control.planes.log import DesiredLog
from minuet.control.tenancy import api as tenancy_api
from minuet.infra import outbox
from minuet.infra.database import Database, Transaction
from minuet.infra.lease import Leadership
from minuet.infra.outbox import Bus
from minuet.infra.vault import Vault
from minuet.kernel.clock import Clock, SystemClock
from minuet.server.janitor import Janitor
from minuet.server.keys import Keys
from minuet.server.settings import ServerSettings
from minuet.web import idempotency

Job = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """Everything one server process consists of; `jobs` run beside the requests until it stops."""

    settings: ServerSettings
    database: Database
    vault: Vault
    bus: Bus
    clock: Clock
    authenticator: Authenticator
    links: Links
    routers: tuple[APIRouter, ...]
    jobs: tuple[tuple[str, Job], ...]


def assemble(settings: ServerSettings, database: Database, keys: Keys, clock: Clock | None = None) -> ControlPlane:
    """Returns the control plane of this process; nothing runs yet."""
    clock = clock or SystemClock()
    bus = Bus(database, clock)
    authenticator = Authenticator(database, clock)
    links = Links(database, bus, DesiredLog(keys.signer), clock)
    links.sinks.append(Observations(clock))
    janitor = Janitor(database, clock, flush=authenticator.flush, prune=(_prune,))
    deliverer = Deliverer(database, bus, links.desired, delivery_controller.Keys(keys.vault, keys.signer), clock)
    rules = Rules(check_build=builds.offer_check(clock), files_allowed=settings.repositories.allow_files)
    dependents = planes.Dependents(
        users=delivery.users_of_environment, forget=(delivery.forget_environment, configuration.forget_environment)
    )
    routers = (
        identity_api.router(clock),
        tenancy_api.router(
            clock,
            founders=[planes.found_organization],
            closers=[catalog.close_organization, planes.close_organization],
        ),
        planes_api.router(clock, links, dependents),
        catalog_api.router(clock, rules, Summaries(clock)),
        credentials_api.router(clock, keys.vault),
        configuration_api.router(clock, keys.vault, delivery_api.Apply(clock)),
        builds_api.router(clock, bus, BuildLogs(database, bus, keys.signer)),
        builder_api.router(clock, bus, keys.vault, keys.signer),
        delivery_api.router(clock, Streams(database, bus, links, clock)),
    )
    jobs: tuple[tuple[str, Job], ...] = (
        ("outbox", bus.run),
        ("links", links.run),
        ("janitor", janitor.run),
        ("catalog", _led("catalog", database, lambda: catalog_controller.run(database, bus))),
        ("builds", _led("builds", database, lambda: builds_controller.run(database, clock))),
        ("delivery", _led("delivery", database, deliverer.run)),
    )
    return ControlPlane(settings, database, keys.vault, bus, clock, authenticator, links, routers, jobs)


def _led(name: str, database: Database, job: Job) -> Job:
    """Returns the job of a controller of which one replica runs at a time.

    A replica that lost its lease without noticing does no harm for the moment until it does: controllers
    compare what is with what should be, in serializable transactions. The lease saves the double work.
    """
    leadership = Leadership(database, name, alone=database.is_sqlite)

    async def run() -> None:
        await leadership.lead(lambda _term: job())

    return run


async def _prune(tx: Transaction) -> None:
    now = SystemClock().now()
    await outbox.prune(tx, now)
    await idempotency.prune(tx, now)
