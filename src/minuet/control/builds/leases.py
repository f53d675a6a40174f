"""The builders' side of builds: register, take work, tell progress, hand in the result, get lost.

Separate from `service.py`, which serves people: here the caller is a builder,
which belongs to no organization and proves itself by its lease.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import replace

from minuet.control.builds import model, service, store
from minuet.control.builds.model import Build, Builder, BuildStatus, Lease
from minuet.control.catalog import store as catalog
from minuet.control.catalog.model import CredentialKind
from minuet.infra.database import Transaction
from minuet.infra.events import Event
from minuet.infra.vault import Vault
from minuet.kernel.canonical import digest_of
from minuet.kernel.errors import Conflict, Forbidden, Invalid, MinuetError, NotReady
from minuet.kernel.ids import new_id
from minuet.kernel.reasons import REASONS
from minuet.protocol import signing
from minuet.protocol.building import (
    MAX_ASKED,
    Belongings,
    BuildOrder,
    BuildResult,
    BuiltArtifact,
    PhaseName,
    Progress,
    Registration,
    RepositoryCredential,
)

MAX_OFFERS = 100
MAX_WARNINGS = 50
MAX_PHASES = len(PhaseName)
MAX_MANIFEST = 256 * 1024
_LEASE = datetime.timedelta(seconds=model.LEASE_SECONDS)


async def register(
    tx: Transaction, builder_id: str, name: str, registration: Registration, now: datetime.datetime
) -> None:
    """Records what a builder says at its start; builds of its earlier incarnation go back to the queue."""
    if len(registration.buildpacks) > MAX_OFFERS:
        raise Invalid(f"a builder offers at most {MAX_OFFERS} buildpacks")
    if not registration.url.startswith(("http://", "https://")):
        raise Invalid("url: must be an http or https URL")
    builder = Builder(
        id=builder_id,
        name=name,
        incarnation=registration.incarnation[:80],
        version=registration.version[:60],
        url=registration.url[:300],
        fingerprint=registration.fingerprint,
        public_key=registration.public_key,
        isolation=registration.isolation[:40],
        offers=registration.buildpacks,
        registered_at=now,
        seen_at=now,
    )
    await store.put_builder(tx, builder)
    for build in await store.leased_to_others(tx, builder_id, builder.incarnation):
        await give_back(tx, build, now, "its builder started again")
    tx.emit(Event(service.BUILDER_REGISTERED, None, builder_id, {"version": builder.version}))


async def take(tx: Transaction, builder_id: str, vault: Vault, now: datetime.datetime) -> BuildOrder | None:
    """Leases the next build to a builder; a build whose credential cannot be opened fails and the next one is taken."""
    builder = await _registered(tx, builder_id)
    await store.mark_builder_seen(tx, builder_id, now)
    while (queued := await store.next_queued(tx)) is not None:
        lease = Lease(new_id("lea"), builder.id, builder.incarnation, now + _LEASE)
        build = replace(
            queued,
            status=BuildStatus.BUILDING,
            reason="Building",
            message="the builder has taken it",
            attempts=queued.attempts + 1,
            lease=lease,
            builder_id=builder.id,
            started_at=queued.started_at or now,
            phases=(),
        )
        try:
            credential = await _credential(tx, build, vault)
        except MinuetError as error:
            await service.finish(tx, _failed(build, "AuthenticationRequired", error.message), now)
            continue
        await store.save(tx, build)
        service.announce(tx, build, service.CHANGED)
        return _order(build, lease, credential)
    return None


async def progress(tx: Transaction, builder_id: str, lease: str, news: Progress, now: datetime.datetime) -> bool:
    """Records how far a build is and renews its lease; returns whether it was cancelled."""
    build, held = await _leased(tx, builder_id, lease)
    if build.status.is_final:
        raise _lost(lease)
    told = replace(
        _with_commit(build, news.commit, news.commit_message, news.commit_author),
        phases=news.phases[:MAX_PHASES] or build.phases,
        lease=replace(held, until=now + _LEASE),
    )
    await store.save(tx, told)
    await store.mark_builder_seen(tx, builder_id, now)
    if (told.phases, told.commit) != (build.phases, build.commit):
        service.announce(tx, told, service.CHANGED)
    return told.cancel_requested


async def complete(tx: Transaction, builder_id: str, lease: str, result: BuildResult, now: datetime.datetime) -> None:
    """Records the end of a build. Handing the same result in again changes nothing."""
    build, _ = await _leased(tx, builder_id, lease)
    if build.status.is_final:
        return
    builder = await _registered(tx, builder_id)
    told = replace(
        _with_commit(build, result.commit, result.commit_message, result.commit_author),
        phases=result.phases[:MAX_PHASES],
        descriptor=result.descriptor,
        warnings=tuple(warning[: model.MAX_LINE] for warning in result.warnings[:MAX_WARNINGS]),
        log_tail=model.bounded_lines(result.log_tail),
    )
    await service.finish(tx, _outcome(told, builder, result), now)


def _outcome(build: Build, builder: Builder, result: BuildResult) -> Build:
    if build.cancel_requested or result.reason == "BuildCancelled":
        return service.cancelled(build)
    if result.artifact is None:
        reason = result.reason if result.reason in REASONS and result.reason != "Succeeded" else "BuildFailed"
        return _failed(build, reason, result.message)
    try:
        _check_artifact(result.artifact, builder)
    except (Forbidden, Invalid) as error:
        return _failed(build, "ArtifactCorrupt", error.message)
    message = _text(result.message, model.MAX_LINE) or "the artifact is ready to be deployed"
    return replace(
        build, status=BuildStatus.SUCCEEDED, reason="Succeeded", message=message, artifact=result.artifact, log_tail=()
    )


def _check_artifact(artifact: BuiltArtifact, builder: Builder) -> None:
    if len(artifact.manifest) > MAX_MANIFEST:
        raise Invalid(f"the manifest has more than {MAX_MANIFEST} characters")
    if digest_of(artifact.manifest.encode()) != artifact.digest:
        raise Invalid("the manifest does not have the digest that names it")
    signing.verify(builder.public_key, artifact.manifest.encode(), artifact.signature)


async def held(tx: Transaction, asked: Belongings) -> Belongings:
    """Returns those of the builds and projects that exist; a builder serves all organizations alike."""
    if max(len(asked.builds), len(asked.projects)) > MAX_ASKED:
        raise Invalid(f"at most {MAX_ASKED} builds and projects can be asked for at a time")
    return Belongings(
        builds=await store.existing(tx, asked.builds), projects=await catalog.existing_projects(tx, asked.projects)
    )


async def give_back(tx: Transaction, build: Build, now: datetime.datetime, why: str) -> None:
    """Puts a build whose builder is lost back into the queue, or ends it after too many times."""
    if build.cancel_requested:
        await service.finish(tx, service.cancelled(build), now)
    elif build.attempts >= model.MAX_ATTEMPTS:
        message = f"{why}, in attempt {build.attempts} of {model.MAX_ATTEMPTS}"
        await service.finish(tx, _failed(build, "BuilderLost", message), now)
    else:
        message = f"{why}; it is tried again ({build.attempts} of {model.MAX_ATTEMPTS} attempts used)"
        queued = replace(build, status=BuildStatus.QUEUED, reason="Queued", message=message, lease=None, phases=())
        await store.save(tx, queued)
        service.announce(tx, queued, service.QUEUED)


async def expire(tx: Transaction, silent: Iterable[Lease], now: datetime.datetime) -> int:
    """Gives back the builds of leases that were not renewed for too long, unless they were now; returns how many."""
    count = 0
    for lease in silent:
        build = await store.by_lease(tx, lease.id)
        if build is not None and build.lease == lease and not build.status.is_final:
            await give_back(tx, build, now, f"its builder was silent for {model.LEASE_SECONDS:.0f} s")
            count += 1
    return count


async def _registered(tx: Transaction, builder_id: str) -> Builder:
    builder = await store.builder(tx, builder_id)
    if builder is None:
        raise NotReady("the builder has not registered", code="BuilderNotRegistered", hint="register first")
    return builder


async def _leased(tx: Transaction, builder_id: str, lease: str) -> tuple[Build, Lease]:
    build = await store.by_lease(tx, lease)
    if build is None or build.lease is None or build.lease.builder_id != builder_id:
        raise _lost(lease)
    return build, build.lease


def _lost(lease: str) -> Conflict:
    return Conflict(
        f"the lease {lease} is not held any more", code="LeaseLost", hint="drop the build; it went on without"
    )


def _failed(build: Build, reason: str, message: str) -> Build:
    return replace(build, status=BuildStatus.FAILED, reason=reason, message=_text(message, model.MAX_LINE) or "")


def _with_commit(build: Build, commit: str | None, message: str | None, author: str | None) -> Build:
    return replace(
        build,
        commit=_text(commit, 64) or build.commit,
        commit_message=_text(message, 1000) or build.commit_message,
        commit_author=_text(author, 300) or build.commit_author,
    )


def _text(text: str | None, limit: int) -> str | None:
    """Cuts what a builder says; PostgreSQL keeps no NUL."""
    return None if text is None else text.replace("\x00", "")[:limit]


async def _credential(tx: Transaction, build: Build, vault: Vault) -> RepositoryCredential | None:
    if build.source.credential is None or build.source.repository is None:
        return None
    found = await catalog.credential_by_name(tx, build.organization_id, build.source.credential)
    if found is None:
        raise Conflict(f"the credential {build.source.credential} does not exist any more", code="CredentialNotFound")
    value = vault.open(found.sealed, found.context).reveal()
    if found.kind is CredentialKind.DEPLOY_KEY:
        return RepositoryCredential(username=found.username, deploy_key=value)
    return RepositoryCredential(username=found.username, token=value)


def _order(build: Build, lease: Lease, credential: RepositoryCredential | None) -> BuildOrder:
    return BuildOrder(
        lease=lease.id,
        build=build.id,
        organization=build.organization,
        organization_id=build.organization_id,
        project=build.project,
        project_id=build.project_id,
        component=build.component,
        component_id=build.component_id,
        component_type=build.component_type.value,
        repository=build.source.repository,
        branch=build.source.branch,
        commit=build.commit,
        directory=build.source.directory,
        config=dict(build.source.config),
        environment=dict(build.source.environment),
        credential=credential,
    )
