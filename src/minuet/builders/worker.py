"""Leases builds from the control plane, runs them, tells their progress, delivers their results.

A control plane that is away stops nothing: a running build goes on, and its
result waits on the disk until it can be delivered.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import httpx2

from minuet import __version__
from minuet.builders import package_sources, source
from minuet.builders.buildpacks import BUILDPACKS
from minuet.builders.failure import BuildFailure
from minuet.builders.logs import BuildLog, remove_old
from minuet.builders.pipeline import Outcome, Pipeline
from minuet.builders.repositories import Repositories
from minuet.builders.settings import BuilderSettings
from minuet.builders.store import Store
from minuet.builders.workshop import open_workshop, remove_left_over
from minuet.infra import http
from minuet.infra.files import make_private_directory, write_secret
from minuet.infra.telemetry import logger
from minuet.kernel.errors import MinuetError, Unavailable
from minuet.kernel.ids import new_id
from minuet.kernel.retry import Backoff
from minuet.launcher.client import Launcher
from minuet.protocol.base import Document
from minuet.protocol.building import (
    MAX_ASKED,
    Belongings,
    BuildOrder,
    BuildpackOffer,
    BuildResult,
    Phase,
    Progress,
    ProgressAnswer,
    Registered,
    Registration,
)

_log = logger(__name__)
_POLL_SECONDS = 40.0
_TIDY_SECONDS = 3600.0
_YOUNG_SECONDS = 24 * 3600.0
"""What was made within this time is kept whoever holds it: its result may still be on its way."""
_OFFER_SECONDS = 300.0
_OK, _NO_CONTENT, _CONFLICT, _ERROR = 200, 204, 409, 400
_GONE = (404, 409, 410)
_UNFIT = (400, 413, 422)
"""Refusals of a result that no repetition of it would change."""


class ControlPlane:
    """The builder's part of the API."""

    def __init__(self, settings: BuilderSettings) -> None:
        self._settings = settings
        self._client = http.client(fingerprint=settings.fingerprint, read_seconds=_POLL_SECONDS)

    async def register(self, registration: Registration) -> Registered:
        answer = await self._post("registration", registration)
        return Registered.model_validate_json(answer.content)

    async def lease(self) -> BuildOrder | None:
        """Waits for work, for half a minute at most."""
        answer = await self._post("leases", None)
        return None if answer.status_code == _NO_CONTENT else BuildOrder.model_validate_json(answer.content)

    async def progress(self, lease: str, progress: Progress) -> ProgressAnswer:
        answer = await self._post(f"leases/{lease}/progress", progress)
        return ProgressAnswer.model_validate_json(answer.content)

    async def result(self, lease: str, result: str) -> None:
        await self._post(f"leases/{lease}/result", result)

    async def held(self, asked: Belongings) -> Belongings:
        """Which of these builds and projects there still are."""
        return Belongings.model_validate_json((await self._post("held", asked)).content)

    async def _post(self, path: str, document: Document | str | None) -> httpx2.Response:
        body = document.wire() if isinstance(document, Document) else document
        headers = {
            "Authorization": f"Bearer {self._settings.credential.read_text().strip()}",
            "Content-Type": "application/json",
        }
        url = f"{self._settings.server.rstrip('/')}/api/v1/builder/{path}"
        try:
            answer = await self._client.post(url, content=(body or "{}").encode(), headers=headers)
        except (httpx2.HTTPError, OSError) as error:
            raise Unavailable(f"the control plane does not answer: {error}") from error
        if answer.status_code >= _ERROR:
            raise Refused(answer.status_code, answer.text[:300])
        return answer


class Refused(MinuetError):
    """The control plane answered with an error."""

    code = "Refused"

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"the control plane refused with {status}: {text}")
        self.status = status


@dataclass
class _Parts:
    """What every build needs."""

    launcher: Launcher
    store: Store
    repositories: Repositories


class Worker:
    """Runs as many builds at once as the settings allow."""

    def __init__(
        self,
        settings: BuilderSettings,
        launcher: Launcher,
        store: Store,
        repositories: Repositories,
        fingerprint: str | None = None,
    ) -> None:
        self._settings = settings
        self._fingerprint = fingerprint
        self._parts = _Parts(launcher, store, repositories)
        self._api = ControlPlane(settings)
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._builds: set[asyncio.Task[None]] = set()
        self._tidying = asyncio.Lock()
        self._registered = asyncio.Event()
        self.signing_key: str | None = None
        for folder in (settings.logs, settings.results, settings.open_workspaces):
            folder.mkdir(parents=True, exist_ok=True)
        make_private_directory(settings.directory / "known_hosts")

    async def run(self) -> None:
        """Registers, leases and builds until cancelled."""
        # Before registering, which gives back what an earlier incarnation had leased.
        await self._deliver_waiting()
        attempt = 0
        while True:
            try:
                if self.signing_key is None:
                    await self._register()
                await self._slots.acquire()
                await self._lease()
                attempt = 0
            except (MinuetError, ValueError) as error:
                attempt += 1
                _log.info("control_plane.away", error=str(error)[:300])
                if not isinstance(error, Unavailable):
                    self.signing_key = None
                await asyncio.sleep(Backoff(base=0.2, cap=10.0).delay(attempt))

    async def keep_tidy(self) -> None:
        """Removes what nobody needs any more, between builds, now and every hour."""
        try:
            await remove_left_over(self._parts.launcher, self._settings.open_workspaces)
        except (MinuetError, OSError) as error:
            _log.warning("tidying.failed", error=str(error)[:300])
        await self._registered.wait()
        while True:
            if not self._builds:
                # A build that is leased meanwhile waits: it might find in the store what goes away.
                async with self._tidying:
                    try:
                        await self.tidy(time.time())
                    except (OSError, ValueError, KeyError, MinuetError) as error:
                        _log.warning("tidying.failed", error=str(error)[:300])
            await asyncio.sleep(_TIDY_SECONDS)

    async def tidy(self, now: float) -> None:
        """Removes old logs, what the control plane no longer holds, and what the cache has no room for."""
        store, repositories = self._parts.store, self._parts.repositories
        await asyncio.to_thread(remove_old, self._settings.logs, self._settings.log_days, now)
        await asyncio.to_thread(store.prune, self._settings.cache_bytes)
        before = now - _YOUNG_SECONDS
        builds = await asyncio.to_thread(store.builds)
        projects = await asyncio.to_thread(repositories.projects, before)
        gone = await self._gone(builds, projects)
        released = await asyncio.to_thread(store.release, gone.builds, before)
        for project in gone.projects:
            await repositories.remove(project)
        _log.info("tidied", artifacts=released, repositories=len(gone.projects))

    async def _gone(self, builds: frozenset[str], projects: frozenset[str]) -> Belongings:
        """Which of them the control plane does not know any more; one that is away has lost nothing."""
        held_builds, held_projects = set[str](), set[str]()
        for part in _parts(builds):
            held_builds |= set((await self._api.held(Belongings(builds=part))).builds)
        for part in _parts(projects):
            held_projects |= set((await self._api.held(Belongings(projects=part))).projects)
        return Belongings(builds=tuple(builds - held_builds), projects=tuple(projects - held_projects))

    async def _register(self) -> None:
        # What the first build would otherwise ask for is asked now.
        await asyncio.to_thread(package_sources.hosts)
        offers = await _offers()
        isolation = await self._parts.launcher.isolation()
        registered = await self._api.register(
            Registration(
                incarnation=self._incarnation,
                version=__version__,
                url=self._settings.base_url,
                fingerprint=self._fingerprint,
                public_key=self._parts.store.signer.public_key,
                isolation=str(isolation.get("isolation", "")),
                buildpacks=offers,
            )
        )
        self.signing_key = registered.signing_key
        self._offered = offers
        self._registered.set()
        self._renew_seconds = registered.lease_seconds / 3
        _log.info("registered", buildpacks=[offer.name for offer in offers])

    async def keep_offers(self) -> None:
        """Asks anew what can be built, and tells it when it has changed; so no build waits for the question either."""
        while True:
            await asyncio.sleep(_OFFER_SECONDS)
            await asyncio.to_thread(package_sources.hosts)
            if self.signing_key is not None and await _offers() != self._offered:
                with contextlib.suppress(MinuetError, ValueError):
                    await self._register()

    _incarnation = new_id("inc")
    _renew_seconds = 10.0
    _offered: tuple[BuildpackOffer, ...] = ()

    async def _lease(self) -> None:
        try:
            order = await self._api.lease()
        except BaseException:
            self._slots.release()
            raise
        if order is None:
            self._slots.release()
            return
        async with self._tidying:
            task = asyncio.create_task(self._build(order))
        self._builds.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._builds.discard(task)
        self._slots.release()
        if not task.cancelled() and (error := task.exception()):
            _log.error("build.crashed", error=repr(error))

    async def _build(self, order: BuildOrder) -> None:
        path = self._settings.logs / f"{order.build}.jsonl"
        ended = path.with_suffix(".ended")
        ended.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        log = BuildLog(path, order.limits.log_bytes, source.hidden(order))
        reporter = _Reporter(self._api, order, self._renew_seconds)
        try:
            outcome, failure = await self._attempt(order, log, reporter)
        finally:
            log.close()
            ended.touch()
        if reporter.lost:
            _log.info("build.lost", build=order.build, lease=order.lease)
            return
        result = _result(outcome, failure, tuple(log.tail), reporter.cancelled)
        await self._deliver(order.lease, result.wire())

    async def _attempt(
        self, order: BuildOrder, log: BuildLog, reporter: _Reporter
    ) -> tuple[Outcome, BuildFailure | None]:
        outcome = Outcome()
        try:
            sources = self._sources(order)
            async with (
                reporter.renewing(),
                open_workshop(
                    self._parts.launcher, order.organization_id, log, order.limits, self._settings.open_workspaces
                ) as workshop,
            ):
                pipeline = Pipeline(workshop, self._parts.store, order, sources, reporter.tell)
                outcome = pipeline.outcome
                await pipeline.run()
        except BuildFailure as failure:
            return outcome, failure
        except asyncio.CancelledError:
            if not (reporter.cancelled or reporter.lost):
                raise
            return outcome, BuildFailure("BuildCancelled", "the build was cancelled")
        except MinuetError as error:
            return outcome, BuildFailure("BuildFailed", error.message)
        except Exception as error:  # noqa: BLE001 - a defect of ours ends this build with a reason, and no other
            if not isinstance(error, OSError):
                _log.exception("build.crashed")
                return outcome, BuildFailure("BuildFailed", f"a defect of the builder: {type(error).__name__}: {error}")
            reason = "BuildDiskFull" if error.errno == 28 else "BuildFailed"  # noqa: PLR2004 - ENOSPC
            return outcome, BuildFailure(reason, f"the builder could not go on: {error.strerror}")
        return outcome, None

    def _sources(self, order: BuildOrder) -> source.Sources:
        return source.Sources(
            hosted=self._parts.repositories.adopt(order.organization, order.project, order.project_id),
            known_hosts=self._settings.directory / "known_hosts" / order.organization_id,
            local_allowed=self._settings.allow_local_repositories,
            private_networks=self._settings.private_networks,
        )

    async def _deliver(self, lease: str, result: str) -> None:
        """Keeps the result on the disk until the control plane has it."""
        path = self._settings.results / f"{lease}.json"
        await asyncio.to_thread(write_secret, path, result.encode())
        attempt = 0
        while True:
            attempt += 1
            try:
                await self._api.result(lease, result)
            except Refused as refused:
                if refused.status in _GONE or refused.status in _UNFIT:
                    _log.info("result.unwanted", lease=lease, why=str(refused)[:300])
                    break
            except MinuetError:
                pass
            else:
                break
            await asyncio.sleep(Backoff(base=0.2, cap=10.0).delay(attempt))
        path.unlink(missing_ok=True)

    async def _deliver_waiting(self) -> None:
        """Hands in what a builder before this one could not, until the control plane has it or wants it no more."""
        waiting = sorted(self._settings.results.glob("*.json"))
        await asyncio.gather(*(self._deliver(path.stem, path.read_text()) for path in waiting))


def _parts(ids: frozenset[str]) -> Iterator[tuple[str, ...]]:
    """As many at a time as may be asked for."""
    ordered = sorted(ids)
    return (tuple(ordered[start : start + MAX_ASKED]) for start in range(0, len(ordered), MAX_ASKED))


async def _offers() -> tuple[BuildpackOffer, ...]:
    found = await asyncio.gather(*(asyncio.to_thread(buildpack.offers) for buildpack in BUILDPACKS))
    return tuple(itertools.chain.from_iterable(found))


class _Reporter:
    """Tells progress and keeps the lease while a build runs; learns when it was cancelled, or is another builder's."""

    def __init__(self, api: ControlPlane, order: BuildOrder, every: float) -> None:
        self._api = api
        self._lease = order.lease
        self._every = every
        self._phases: tuple[Phase, ...] = ()
        self._task: asyncio.Task[object] | None = None
        self._stopped = False
        self.cancelled = False
        self.lost = False

    async def tell(self, phases: tuple[Phase, ...]) -> None:
        self._phases = phases
        await self._send()

    @contextlib.asynccontextmanager
    async def renewing(self) -> AsyncIterator[None]:
        self._task = asyncio.current_task()
        renewal = asyncio.create_task(self._renew())
        try:
            yield
        finally:
            renewal.cancel()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            await self._send()

    async def _send(self) -> None:
        try:
            answer = await self._api.progress(self._lease, Progress(phases=self._phases))
        except Refused as refused:
            # Somebody else may be building it already; two results of one build would be one too many.
            if refused.status in _GONE:
                self.lost = True
                self._stop()
            return
        except (MinuetError, ValueError) as error:
            _log.info("progress.untold", error=str(error)[:200])
            return
        if answer.cancelled and not self.cancelled:
            self.cancelled = True
            self._stop()

    def _stop(self) -> None:
        if self._task is not None and not self._stopped:
            self._stopped = True
            self._task.cancel()


def _result(outcome: Outcome, failure: BuildFailure | None, tail: tuple[str, ...], cancelled: bool) -> BuildResult:
    fetched = outcome.fetched
    return BuildResult(
        commit=fetched.commit if fetched else None,
        commit_message=fetched.message if fetched else None,
        commit_author=fetched.author if fetched else None,
        phases=tuple(outcome.phases.values()),
        artifact=None if failure else outcome.artifact,
        descriptor=outcome.descriptor,
        warnings=tuple(outcome.warnings),
        reason="BuildCancelled" if cancelled else failure.reason if failure else "Succeeded",
        message=failure.message if failure else "",
        log_tail=tail if failure else (),
    )
