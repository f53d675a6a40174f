"""Rows for store tests, made by the services that make them in earnest."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from minuet.control.builds import leases
from minuet.control.builds import service as builds
from minuet.control.builds.model import Build
from minuet.control.catalog import service as catalog
from minuet.control.catalog.model import Component, ProjectType
from minuet.control.delivery import service as delivery
from minuet.control.planes import service as planes
from minuet.control.planes.model import DEFAULT_PLANE, Environment
from minuet.control.tenancy import service as tenancy
from minuet.control.tenancy.model import Organization
from minuet.infra.database import Database, Transaction
from minuet.infra.vault import Vault
from minuet.kernel.canonical import canonical_json, digest_of
from minuet.kernel.clock import SystemClock
from minuet.protocol.building import BuildOrder, BuildResult, BuiltArtifact, Registration
from minuet.protocol.signing import Signer, new_signing_key
from minuet.render.inputs import ComponentType
from tests.given.builders import PYTHON

NOW = datetime.datetime(2026, 11, 24, 12, tzinfo=datetime.UTC)
VAULT = Vault(b"k" * 32)
SIGNER = Signer(new_signing_key())
BUILDER = "tok_builder"


@dataclass(frozen=True)
class World:
    """One organization with a component, an environment on a plane, and a registered builder."""

    organization: Organization
    component: Component
    environment: Environment

    def request(self, now: datetime.datetime = NOW) -> delivery.Request:
        return delivery.Request(self.organization.name, self.component, self.environment, "ada", now)


async def world(database: Database, name: str = "acme", *, first: bool = True) -> World:
    async with database.transaction() as tx:
        if first:
            await planes.create_plane(tx, DEFAULT_PLANE, domain="localhost", now=NOW)
            await register(tx, "one")
        founders = [planes.found_organization]
        organization = await tenancy.create_organization(tx, name, None, now=NOW, founders=founders)
        project = await catalog.create_project(
            tx, organization.id, "shop", display_name=None, description="", kind=ProjectType.MONOREPO, now=NOW
        )
        component = await catalog.create_component(
            tx,
            project,
            "web",
            catalog.ComponentSpec(type=ComponentType.SERVICE, display_name="web"),
            rules=catalog.Rules(check_build=builds.offer_check(SystemClock())),
            now=NOW,
        )
        environment = await planes.get_environment(tx, organization.id, "development")
    return World(organization, component, environment)


async def register(tx: Transaction, incarnation: str, url: str = "http://127.0.0.1:1") -> None:
    registration = Registration(
        incarnation=incarnation,
        version="0.1.0",
        url=url,
        public_key=SIGNER.public_key,
        isolation="sandbox",
        buildpacks=(PYTHON,),
    )
    await leases.register(tx, BUILDER, "builder", registration, NOW)


async def queue(database: Database, made: World, now: datetime.datetime = NOW) -> Build:
    async with database.transaction() as tx:
        return await builds.create_build(tx, made.component, made.organization.name, requested_by="ada", now=now)


async def take(database: Database, now: datetime.datetime = NOW) -> BuildOrder | None:
    async with database.transaction() as tx:
        return await leases.take(tx, BUILDER, VAULT, now)


async def complete(database: Database, order: BuildOrder, now: datetime.datetime = NOW) -> None:
    layer = {"digest": digest_of(order.build.encode()), "size": 1, "target": "/app"}
    manifest = canonical_json({"layers": [layer]}).decode()
    artifact = BuiltArtifact(
        digest=digest_of(manifest.encode()),
        manifest=manifest,
        signature=SIGNER.sign(manifest.encode()),
        size=1,
        layers=(layer,),
        sbom="sha256:0",
        command="python app.py",
    )
    async with database.transaction() as tx:
        await leases.complete(tx, BUILDER, order.lease, BuildResult(artifact=artifact), now)


async def built(database: Database, made: World) -> Build:
    build = await queue(database, made)
    order = await take(database)
    assert order is not None
    assert order.build == build.id
    await complete(database, order)
    return build
