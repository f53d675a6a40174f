"""The process driver: the agent's port on one side, launcher and shims on the other.

The agent's reconcile loop calls it. It keeps one small file for each instance,
so that an agent that was restarted follows every living instance again, with
or without a launcher.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

from minuet.agent.drivers.port import InstanceSpec, InstanceState, Location
from minuet.agent.drivers.process import readiness
from minuet.agent.drivers.process.artifacts import ArtifactKeeper
from minuet.agent.drivers.process.follow import Facts, Follower
from minuet.kernel.errors import Exhausted, Forbidden, Invalid, MinuetError
from minuet.kernel.retry import GiveUp, Retry
from minuet.launcher.client import Launcher, LayerMount, Place, Sealable, StartInstance, place_of
from minuet.protocol.desired import Artifact, EnvironmentVariable, MountedFile

_RETRY_SECONDS = 1.0
_NO_ROOM_SECONDS = 10.0
_STOP_MARGIN = 5.0


class ProcessDriver:
    """Implements `Driver`. Made by `open`, because it begins by looking at what runs."""

    def __init__(self, launcher: Launcher, plane: Path, isolation: str) -> None:
        self._isolation = isolation
        self._launcher = launcher
        self._plane = plane
        self._notes = plane / "process" / "instances"
        self._artifacts = ArtifactKeeper(launcher, plane)
        self._followers: dict[str, Follower] = {}
        self._news = asyncio.Event()

    @classmethod
    async def open(cls, launcher: Launcher, plane: Path) -> ProcessDriver:
        """Follows everything an earlier agent left; raises `Unavailable` without a launcher."""
        driver = cls(launcher, plane, str((await launcher.isolation())["isolation"]))
        driver._notes.mkdir(parents=True, exist_ok=True)
        driver._artifacts.open()
        notes = driver._read_notes()
        for instance in await launcher.instances():
            facts = notes.pop(instance["id"], None)
            if facts is not None and (instance["shim"] is not None or instance["wanted"]):
                driver._follow(dataclasses.replace(facts, location=location_of(place_of(instance))))
            else:
                # It was stopped with the whole platform, its start failed, or nobody knows what it is for.
                await driver._discard(instance["id"])
        for left in notes:
            driver._forget_notes(left)
        return driver

    def _read_notes(self) -> dict[str, Facts]:
        """What earlier agents noted; a note that cannot be read is as good as none."""
        found = {}
        known = {field.name for field in dataclasses.fields(Facts)} - {"location"}
        for path in sorted(self._notes.glob("*.json")):
            try:
                noted = json.loads(path.read_bytes()).items()
                found[path.stem] = Facts(**{name: value for name, value in noted if name in known})
            except (ValueError, TypeError, AttributeError):
                path.unlink()
        return found

    @property
    def isolation(self) -> str:
        return self._isolation

    @property
    def sealing_key(self) -> str:
        """The public key that secrets for this data plane are sealed with; the launcher made it."""
        return (self._plane / "sealing.pub").read_text(encoding="ascii").strip()

    async def close(self) -> None:
        """Stops following; instances go on."""
        for follower in self._followers.values():
            await follower.close()

    async def start(self, spec: InstanceSpec) -> None:
        known = self._followers.get(spec.id)
        if known is not None and not known.stopped.is_set():
            return
        facts = facts_of(spec, self.isolation)
        # Before it exists: an agent that dies meanwhile leaves nothing that the next one does not know of.
        self._write_note(facts)
        try:
            place = await self._launcher.start_instance(order_of(spec))
        except (Invalid, Forbidden) as error:
            await self._discard(spec.id)
            raise GiveUp("StartFailed", error.message) from error
        except Exhausted as error:
            raise Retry(error.message, _NO_ROOM_SECONDS) from error
        except MinuetError as error:
            raise Retry(error.message, _RETRY_SECONDS) from error
        if known is not None:
            await known.close()
        self._follow(dataclasses.replace(facts, location=location_of(place)))

    async def _discard(self, instance_id: str) -> None:
        """Removes what nobody follows; what cannot be removed now goes with its workload or at the next opening."""
        with contextlib.suppress(MinuetError):
            await self._launcher.remove_instance(instance_id)
            self._forget_notes(instance_id)

    async def stop(self, instance_id: str, grace: float) -> None:
        """Returns when nothing of it runs; asks the shim itself when there is no launcher."""
        follower = self._followers.get(instance_id)
        try:
            await self._launcher.stop_instance(instance_id, grace)
        except MinuetError:
            if follower is not None:
                await self._stop_without_launcher(follower, grace)
            return
        if follower is not None and follower.end():
            self._news.set()

    async def _stop_without_launcher(self, follower: Follower, grace: float) -> None:
        with contextlib.suppress(OSError, ValueError):
            await follower.ask_shim("stop", grace=grace)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace + _STOP_MARGIN):
                await follower.stopped.wait()

    async def remove(self, instance_id: str) -> None:
        try:
            await self._launcher.remove_instance(instance_id)
        except MinuetError as error:
            raise Retry(error.message, _RETRY_SECONDS) from error
        follower = self._followers.pop(instance_id, None)
        if follower is not None:
            await follower.close()
        self._forget_notes(instance_id)
        self._news.set()

    async def observe(self) -> tuple[InstanceState, ...]:
        self._news.clear()
        return tuple(follower.state() for follower in self._followers.values())

    async def changed(self) -> None:
        await self._news.wait()

    async def ensure_artifact(self, artifact: Artifact) -> tuple[tuple[Path, str], ...]:
        return await self._artifacts.ensure(artifact)

    async def prune_artifacts(self, keep: frozenset[str]) -> None:
        await self._artifacts.prune(keep)

    async def forget(self, workload_key: str) -> None:
        """After the last instance of a removed workload: its logs go, and its uid is given back."""
        try:
            await self._remove_orphans(workload_key)
            await self._launcher.forget_workload(workload_key)
        except MinuetError as error:
            raise Retry(error.message, _RETRY_SECONDS) from error

    def _verdict(self, instance_id: str) -> Path:
        """Where the last verdict of an instance's declared health check is noted."""
        return self._notes / f"{instance_id}.verdict"

    async def _remove_orphans(self, workload_key: str) -> None:
        """What the launcher still holds of a workload and nobody follows: starts that failed or went unanswered."""
        for instance in await self._launcher.instances():
            if instance["key"] == workload_key and instance["id"] not in self._followers:
                await self._launcher.remove_instance(instance["id"])
                self._forget_notes(instance["id"])

    def _note_of(self, instance_id: str) -> Path:
        return self._notes / f"{instance_id}.json"

    def _forget_notes(self, instance_id: str) -> None:
        for path in (self._note_of(instance_id), self._verdict(instance_id)):
            path.unlink(missing_ok=True)

    def _write_note(self, facts: Facts) -> None:
        """Whole or not at all; not synced, since after a power failure nothing runs that it could name.

        Where the instance is dialled is not noted: the launcher says so to whoever opens the driver.
        """
        fresh = self._notes / f".{facts.id}.new"
        noted = {name: value for name, value in dataclasses.asdict(facts).items() if name != "location"}
        try:
            fresh.write_text(json.dumps(noted), encoding="utf-8")
            fresh.replace(self._note_of(facts.id))
        except OSError as error:
            raise Retry(f"the instance cannot be noted: {error}", _NO_ROOM_SECONDS) from error

    def _follow(self, facts: Facts) -> None:
        socket = self._plane / "instances" / facts.id / "s"
        self._followers[facts.id] = Follower(facts, socket, self._verdict(facts.id), self._news.set)
        self._news.set()


def order_of(spec: InstanceSpec) -> StartInstance:
    """What the launcher is asked for; pure. Sealed values stay sealed."""
    workload, limits = spec.workload, spec.workload.resources
    return StartInstance(
        id=spec.id,
        key=workload.key,
        template=workload.template,
        generation=spec.workload.generation,
        command=workload.command,
        layers=tuple(LayerMount(path.name, target) for path, target in spec.layers),
        environment=tuple(_sealable(item.name, item.value, item) for item in workload.environment_variables),
        files=tuple(_sealable(item.path, item.content, item) for item in workload.files),
        ports=workload.ports,
        cpu=limits.cpu,
        memory=limits.memory,
        disk=limits.disk,
        processes=limits.processes,
        stop_grace=workload.stop_grace,
    )


def _sealable(name: str, value: str | None, item: EnvironmentVariable | MountedFile) -> Sealable:
    return Sealable(name, ciphertext=item.sealed.ciphertext) if item.sealed else Sealable(name, value=value or "")


def location_of(place: Place) -> Location:
    """The launcher's word for where an instance is dialled, in the port's; pure."""
    return Location(place.address, tuple(sorted(place.ports.items())))


def facts_of(spec: InstanceSpec, isolation: str) -> Facts:
    """What following this instance needs to know, but for its location; pure."""
    expectation = readiness.expected_of(spec.workload)
    values: dict[str, Any] = {
        "id": spec.id,
        "key": spec.workload.key,
        "template": spec.workload.template,
        "generation": spec.workload.generation,
        "isolation": isolation,
        "ports": expectation.ports,
        "http": expectation.http,
        "probe": expectation.probe.model_dump_json() if expectation.probe else None,
        "memory": spec.workload.resources.memory,
    }
    return Facts(**values)
