"""From rows to what `render` takes: a build and its builder, a place, a configuration.

Used when a deployment is checked and again when it is rendered, so that both
see the same thing.
"""

from __future__ import annotations

from minuet.control.builds.model import Build, Builder
from minuet.control.catalog.model import Component
from minuet.control.planes.model import DataPlane, Environment
from minuet.kernel.errors import Conflict
from minuet.protocol.desired import Artifact, Layer
from minuet.render.inputs import Built, Place


def built(build: Build, builder: Builder, ticket: str) -> Built:
    """Returns what a build left; raises `Conflict` for one without an artifact."""
    made = build.artifact
    if made is None:
        raise Conflict(f"the build {build.name} has no artifact: {build.status}", code="BuildNotDeployable")
    artifact = Artifact(
        digest=made.digest,
        manifest=made.manifest,
        signature=made.signature,
        public_key=builder.public_key,
        store=builder.url.rstrip("/"),
        fingerprint=builder.fingerprint,
        ticket=ticket,
        layers=tuple(Layer.model_validate(layer) for layer in made.layers),
    )
    port = build.source.config.get("port")
    return Built(
        component_type=build.component_type,
        artifact=artifact,
        command=made.command,
        descriptor=build.descriptor,
        port=made.port,
        configured_port=None if port is None else int(port),
        environment=tuple(sorted(made.environment.items())),
    )


def place(organization: str, component: Component, environment: Environment, plane: DataPlane) -> Place:
    """Returns which component in which environment."""
    return Place(
        organization=organization,
        project=component.project,
        component=component.name,
        component_id=component.id,
        environment=environment.name,
        environment_id=environment.id,
        domain=plane.domain,
    )
