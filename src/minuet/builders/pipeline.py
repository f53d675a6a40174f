"""The phases of a build in their order: fetch, detect, plan, restore, build, export; each timed and told."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from minuet.builders import descriptor, package_sources, sbom, source
from minuet.builders.buildpacks import BUILDPACKS
from minuet.builders.buildpacks.port import WORK, Buildpack, DependencyLayer, Plan, Request, Step
from minuet.builders.descriptor_fields import PATH
from minuet.builders.failure import BuildFailure
from minuet.builders.store import Store
from minuet.builders.tree import Tree, archive
from minuet.builders.workshop import Done, Workshop
from minuet.kernel.canonical import canonical_json, digest_of
from minuet.kernel.errors import Exhausted, MinuetError
from minuet.launcher.client import Mount
from minuet.protocol.building import BuildOrder, BuiltArtifact, Phase, PhaseName, PhaseState
from minuet.protocol.descriptor import Descriptor

_UNPACK = """\
mkdir unpacked && tar -x --no-same-owner -C unpacked && cd unpacked || exit 1
find . -mindepth 1 -type d -print0 | (cd /layer && xargs -0 -r mkdir -p --) && cp -rP . /layer/ && rm -rf ../unpacked
"""
"""Folders first, because those that come out of an archive do not pass the builder's group on to what is made in
them, and what a build writes there could not be read for the export."""

_UNEXPLAINED = ("BuildFailed", "InstallFailed")

Told = Callable[[tuple[Phase, ...]], Awaitable[None]]


@dataclass
class Outcome:
    """What is known of a build so far; complete at its end."""

    fetched: source.Fetched | None = None
    descriptor: Descriptor = field(default_factory=Descriptor)
    artifact: BuiltArtifact | None = None
    warnings: list[str] = field(default_factory=list)
    phases: dict[PhaseName, Phase] = field(default_factory=dict)


class Pipeline:
    """One build of one order."""

    def __init__(
        self, workshop: Workshop, store: Store, order: BuildOrder, sources: source.Sources, told: Told
    ) -> None:
        self._workshop = workshop
        self._store = store
        self._order = order
        self._sources = sources
        self._told = told
        self._for_build: list[Mount] = []
        self._changing: list[tuple[DependencyLayer, Path]] = []
        self.outcome = Outcome()

    async def run(self) -> None:
        """Runs the phases; raises `BuildFailure` from the one that failed."""
        async with self._phase(PhaseName.FETCH) as note:
            fetched = await source.fetch(self._workshop, self._order, self._sources)
            self.outcome.fetched = fetched
            self._warn(*fetched.warnings)
            note(fetched.commit[:12])
        tree = Tree(fetched.root)
        async with self._phase(PhaseName.DETECT) as note:
            await asyncio.to_thread(self._describe, tree)
            buildpack, why = await asyncio.to_thread(self._detect, tree)
            note(why)
        async with self._phase(PhaseName.PLAN) as note:
            plan = await asyncio.to_thread(self._plan, buildpack, tree)
            note(f"{plan.toolchain}; start with: {plan.command}")
        layers = await self._restore(plan)
        packages = await self._build(plan)
        async with self._phase(PhaseName.EXPORT) as note:
            self.outcome.artifact = await asyncio.to_thread(self._export, plan, layers, packages)
            note(f"{self.outcome.artifact.digest[:19]}, {self.outcome.artifact.size // 1024} KiB")

    def _describe(self, tree: Tree) -> None:
        try:
            self.outcome.descriptor = descriptor.read(tree)
        except MinuetError as error:
            hint = f" ({error.hint})" if error.hint else ""
            raise BuildFailure("InvalidDescriptor", f"{PATH}: {error.message}{hint}") from error
        self._warn(*self.outcome.descriptor.warnings)

    def _detect(self, tree: Tree) -> tuple[Buildpack, str]:
        named = self._order.config.get("buildpack")
        for buildpack in BUILDPACKS:
            if named == buildpack.name:
                return buildpack, f"{named}, as configured"
            if not named and (why := buildpack.detect(tree)):
                return buildpack, f"{buildpack.name}: {why}"
        known = ", ".join(buildpack.name for buildpack in BUILDPACKS)
        raise BuildFailure("BuildpackNotDetected", f"none of {known} fits {named or 'what is in the directory'}")

    def _plan(self, buildpack: Buildpack, tree: Tree) -> Plan:
        plan = buildpack.plan(
            Request(tree, self._order.config, self._port(), fetched.commit if (fetched := self.outcome.fetched) else "")
        )
        self._warn(*plan.warnings)
        return plan

    def _port(self) -> int | None:
        if self.outcome.descriptor.endpoints:
            return self.outcome.descriptor.endpoints[0].port
        return int(self._order.config["port"]) if self._order.config.get("port") else None

    async def _restore(self, plan: Plan) -> list[dict[str, Any]]:
        """Takes each layer from the cache, or makes it; returns those of the launch."""
        layers = []
        async with self._phase(PhaseName.RESTORE) as note:
            await self._empty(plan)
            reused = True
            for number, layer in enumerate(plan.layers):
                root = self._workshop.path / "layers" / str(number)
                key = self._key_of(layer)
                entry = self._store.cached(key)
                if entry is None:
                    reused = False
                    entry = await self._install(layer, plan, root)
                    self._store.remember(key, entry)
                elif layer.for_build or layer.after_build:
                    await self._unpack(entry["digest"], root)
                if layer.for_build:
                    self._for_build.append(Mount(str(root), layer.target, writable=True))
                if layer.after_build:
                    self._changing.append((layer, root))
                elif layer.for_launch:
                    layers.append(entry)
            note("nothing to install" if not plan.layers else f"dependencies {'reused' if reused else 'installed'}")
        return layers

    def _key_of(self, layer: DependencyLayer) -> str:
        """Of the organization, what the layer is made from, and the variables that its steps see."""
        seen = canonical_json(dict(self._order.environment)).decode() if self._order.environment else ""
        return digest_of(f"{self._order.organization_id}\0{layer.key}\0{seen}".encode())[7:]

    async def _install(self, layer: DependencyLayer, plan: Plan, root: Path) -> dict[str, Any]:
        own = Mount(str(root), layer.made_at or layer.target, writable=True)
        for step in layer.steps:
            await self._run(step, plan, (Mount(str(self._root()), "/app"), *self._shared(), own))
        return await asyncio.to_thread(self._keep, layer, root)

    def _keep(self, layer: DependencyLayer, root: Path) -> dict[str, Any]:
        digest, size = self._put(archive(root, say=self._workshop.log.say, at=layer.target))
        packages = [list(item) for item in layer.packages(root)]
        self._workshop.log.say(f"{layer.name}: {len(packages)} packages, {size // 1024} KiB")
        return {"digest": digest, "size": size, "target": layer.target, "packages": packages}

    async def _empty(self, plan: Plan) -> None:
        """Makes the folders that layers are shown at, whatever the source has there."""
        for name in plan.emptied:
            await self._workshop.run(
                ("/bin/sh", "-c", 'rm -rf -- "$0" && mkdir -- "$0"', name),
                mounts=(Mount(str(self._root()), "/app", writable=True),),
                cwd="/app",
            )

    async def _unpack(self, digest: str, root: Path) -> None:
        """Gives a build a copy of its own of a layer that it only reads, so that no build can spoil it for others."""
        with self._store.path(digest).open("rb") as file:
            done = await self._workshop.run(
                ("/bin/sh", "-c", _UNPACK),
                mounts=(
                    Mount(str(root), "/layer", writable=True),
                    Mount(str(self._workshop.path / "work"), WORK, writable=True),
                ),
                cwd=WORK,
                stdin=file.fileno(),
            )
        if done.exit.code != 0:
            raise BuildFailure("BuildFailed", "a layer of an earlier build could not be unpacked")

    def _shared(self) -> tuple[Mount, ...]:
        return (Mount(str(self._workshop.path / "work"), WORK, writable=True), *self._for_build)

    async def _build(self, plan: Plan) -> list[tuple[str, str, str]]:
        """Runs the build's steps; returns the packages that its output is made of, where a tool can tell."""
        async with self._phase(PhaseName.BUILD):
            mounts = (Mount(str(self._root()), "/app", writable=True), *self._shared())
            for step in plan.steps:
                await self._run(step, plan, mounts)
            built_in = await self._run(plan.listing.step, plan, mounts, listen=True) if plan.listing else ""
            return list(plan.listing.parse(built_in)) if plan.listing else []

    async def _run(self, step: Step, plan: Plan, mounts: tuple[Mount, ...], *, listen: bool = False) -> str:
        done = await self._workshop.run(
            step.argv,
            mounts=(*mounts, *step.mounts),
            cwd=step.cwd,
            environment={**self._order.environment, **plan.environment, **step.environment},
            hosts=package_sources.hosts() if step.fetches else frozenset(),
            listen=listen,
        )
        if done.exit.code != 0:
            raise _failure(step, done, self._workshop.log.said)
        return done.output

    def _export(
        self, plan: Plan, dependencies: list[dict[str, Any]], built_in: list[tuple[str, str, str]]
    ) -> BuiltArtifact:
        dependencies = [*dependencies, *(self._keep(layer, root) for layer, root in self._changing)]
        leave_out = plan.leave_out | {".git"}
        digest, size = self._put(archive(self._output(plan), leave_out, self._workshop.log.say))
        layers: list[dict[str, Any]] = [
            {"digest": digest, "size": size, "target": "/app"},
            *self._extra_layers(plan),
        ]
        layers += [{name: entry[name] for name in ("digest", "size", "target")} for entry in dependencies]
        packages = [(str(n), str(v), str(u)) for entry in dependencies for n, v, u in entry.get("packages", ())]
        bill = self._store.put(sbom.document(self._order.component, iter([*packages, *built_in])))
        fetched = self.outcome.fetched
        manifest = canonical_json(
            {
                "organization": self._order.organization_id,
                "component": self._order.component_id,
                "commit": fetched.commit if fetched else None,
                "directory": self._order.directory,
                "toolchain": plan.toolchain,
                "command": plan.command,
                "environment": dict(plan.environment),
                "layers": layers,
                "sbom": bill,
            }
        )
        return BuiltArtifact(
            digest=self._store.put_manifest(manifest, self._order.build),
            manifest=manifest.decode(),
            signature=self._store.signer.sign(manifest),
            size=sum(int(layer["size"]) for layer in layers),
            layers=tuple(layers),
            sbom=bill,
            command=plan.command,
            port=self._port(),
            toolchain=plan.toolchain,
            environment=dict(plan.environment),
        )

    def _put(self, write: Callable[[IO[bytes]], None]) -> tuple[str, int]:
        """Stores a layer within the build's limits: files may say that they are far larger than they are."""
        limit = self._order.limits.disk
        try:
            return self._store.put_written(write, limit, self._workshop.seconds_left)
        except Exhausted as error:
            message = f"what the build left is larger than {limit // 2**20} MiB"
            raise BuildFailure("BuildDiskFull", message) from error

    def _extra_layers(self, plan: Plan) -> Iterator[dict[str, str | int]]:
        for target, file in plan.extra.items():
            with tempfile.TemporaryDirectory() as folder:
                shutil.copy(file, folder)
                digest, size = self._put(archive(Path(folder)))
            yield {"digest": digest, "size": size, "target": target}

    def _output(self, plan: Plan) -> Path:
        """What is exported; raises `OutputMissing` when the build left it nowhere."""
        if not plan.output:
            return self._root()
        tree = Tree(self._root())
        found = next((name for name in plan.output if tree.has(f"{name}/index.html")), None)
        if found is None:
            raise BuildFailure("OutputMissing", f"the build left no index.html in any of {', '.join(plan.output)}")
        return self._root() / found

    def _root(self) -> Path:
        assert self.outcome.fetched is not None  # noqa: S101 - the phase before set it
        return self.outcome.fetched.root

    def _warn(self, *warnings: str) -> None:
        for warning in warnings:
            self._workshop.log.say(f"warning: {warning}")
            self.outcome.warnings.append(warning)

    @contextlib.asynccontextmanager
    async def _phase(self, name: PhaseName) -> Any:
        """Times a phase, tells its start and its end, and what it decided."""
        said: list[str] = []
        began = time.monotonic()
        self._workshop.log.phase = name.value
        await self._tell(Phase(name=name, state=PhaseState.RUNNING))
        try:
            yield said.append
        except BuildFailure as failure:
            self._workshop.log.say(failure.message)
            state = PhaseState.FAILED
            await self._tell(Phase(name=name, state=state, seconds=_since(began), message=failure.message))
            raise
        for line in said:
            self._workshop.log.say(line)
        message = "; ".join(said)
        await self._tell(Phase(name=name, state=PhaseState.SUCCEEDED, seconds=_since(began), message=message))

    async def _tell(self, phase: Phase) -> None:
        self.outcome.phases[phase.name] = phase
        await self._told(tuple(self.outcome.phases.values()))


def _failure(step: Step, done: Done, said: str) -> BuildFailure:
    """Why a command failed: a refused host is the reason where it was complained of, or where nothing better is known."""
    explained = step.explain(said)
    forbidden = done.forbidden()
    to_blame = explained.reason in _UNEXPLAINED or any(host in said.lower() for host in done.refused)
    return forbidden if forbidden and to_blame else explained


def _since(began: float) -> float:
    return round(time.monotonic() - began, 3)
