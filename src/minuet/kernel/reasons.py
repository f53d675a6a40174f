"""The catalogue of condition reasons: constant, meaning, and what to do next.

A reason that is not listed here cannot be reported; the reference documentation
is generated from this table, and the CLI shows the next step beside the message.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Reason:
    """What a reason means, and the next step for whoever reads it."""

    meaning: str
    next_step: str


_TABLE: dict[str, Reason] = {
    # progress
    "Queued": Reason("Waiting for a builder.", "Wait, or check `minuet status` for a builder that is down."),
    "Building": Reason("The build is running.", "Follow it with `minuet logs <name> --type build --follow`."),
    "Accepted": Reason("The request was checked and recorded.", "Nothing to do."),
    "Waiting": Reason("An earlier step has not finished yet.", "Wait."),
    "Delivered": Reason("The data plane holds this revision on its disk.", "Nothing to do."),
    "Fetching": Reason("The artifact is on its way to the data plane.", "Wait."),
    "Fetched": Reason("The artifact is verified and unpacked.", "Nothing to do."),
    "Starting": Reason("Instances are starting.", "Wait for the health check."),
    "Started": Reason("Every instance runs.", "Nothing to do."),
    "Healthy": Reason("Every instance passed its health check.", "Nothing to do."),
    "Routed": Reason("The gateway sends requests to this version.", "Nothing to do."),
    "Ready": Reason("This version serves.", "Nothing to do."),
    "Succeeded": Reason("It worked.", "Nothing to do."),
    "Suspended": Reason(
        "Stopped on request; nothing runs, and its address answers 503.",
        "`minuet resume <name> --env <environment>` starts it again.",
    ),
    "NotRouted": Reason("It has no public endpoint, so there is nothing to route.", "Nothing to do."),
    "Superseded": Reason("A newer deployment took its place.", "Nothing to do."),
    "Removed": Reason("Deleted on request.", "Nothing to do."),
    # not known
    "PlaneUnreachable": Reason(
        "The data plane's link is down; what it runs goes on, but cannot be seen.",
        "Check the agent on the data plane; the state returns by itself when the link does.",
    ),
    # source and build
    "RepositoryNotFound": Reason("The repository does not exist at that URL.", "Correct the repository URL."),
    "RepositoryUnreachable": Reason("The repository's host did not answer.", "Check the URL and the network."),
    "AuthenticationRequired": Reason(
        "The repository is private, or does not exist.",
        "Check the address; if it is right, `minuet create credential <credential> --token`, then "
        "`minuet set component <name> --credential <credential>`.",
    ),
    "BranchNotFound": Reason("The branch or commit does not exist.", "Correct the branch, or push it first."),
    "DirectoryNotFound": Reason("The directory is not in that commit.", "Correct the component's directory."),
    "RepositoryTooLarge": Reason("The repository is larger than allowed.", "Remove large files from it."),
    "BuildpackNotDetected": Reason("No buildpack fits what is in the directory.", "Name one with buildpack=..."),
    "InvalidDescriptor": Reason("`.choreo/component.yaml` is not valid.", "Correct the field that is named."),
    "InvalidSource": Reason("A file of the source is not what the buildpack needs.", "Correct the file named."),
    "VersionUnavailable": Reason("That language version cannot be had here.", "Choose one of the listed versions."),
    "StartCommandMissing": Reason(
        "Nothing says how to start the application.", "Add a `Procfile` line `web: ...`, or set runCommand."
    ),
    "DependencyNotFound": Reason(
        "A dependency does not exist, or not in that version.", "Correct the dependency named in the log."
    ),
    "InstallFailed": Reason("Installing dependencies failed.", "Read the last lines of the build log."),
    "CompileFailed": Reason("The source does not compile.", "Correct the line named in the log."),
    "BuildFailed": Reason("A build step failed.", "Read the last lines of the build log."),
    "OutputMissing": Reason("The build left nothing where its output should be.", "Correct outputDirectory."),
    "HostForbidden": Reason(
        "The build reached for a host that builds may not reach.", "Take it from a package source, or vendor it."
    ),
    "BuildTimedOut": Reason("The build took longer than allowed.", "Make it shorter, or raise the limit."),
    "BuildOutOfMemory": Reason("The build used more memory than allowed.", "Use less, or raise the build's limit."),
    "BuildDiskFull": Reason("The build wrote more than allowed.", "Write less, or raise the build's disk limit."),
    "BuildCancelled": Reason("Somebody cancelled it.", "Start a new build."),
    "BuilderLost": Reason("The builder stopped during the build, again and again.", "Check the builder's log."),
    # artifact
    "ArtifactUnavailable": Reason(
        "The artifact store does not answer or lost it.", "Check the builder, or build again."
    ),
    "ArtifactCorrupt": Reason("What arrived does not have the digest or signature asked for.", "Build again."),
    # running
    "StartFailed": Reason("The instance could not be started.", "Read the message; `minuet doctor` checks the host."),
    "ExitedAtOnce": Reason("The application exited during its start.", "Read its last log lines."),
    "CrashLoop": Reason("The application exits again and again.", "Read its last log lines."),
    "OutOfMemory": Reason("The application used more memory than its limit.", "Use less, or raise its memory limit."),
    "DiskFull": Reason("The disk, or the instance's share of it, is full.", "Free space, or write less."),
    "ListensOnLoopback": Reason("It listens on 127.0.0.1 only.", "Listen on 0.0.0.0 (or ::)."),
    "ListensOnOtherPort": Reason(
        "It listens on another port than its endpoint says.", "Use $PORT, or correct the endpoint's port."
    ),
    "NotListening": Reason("It runs but listens on no port.", "Listen on $PORT; read its last log lines."),
    "ProbeFailed": Reason("It listens but did not pass its health check.", "Check the probe's path and the logs."),
    "Unhealthy": Reason("It stopped passing its health check.", "Read its last log lines."),
    "GatewayRejected": Reason(
        "The gateway refused the configuration.", "This is a defect of Minuet; please report it."
    ),
    "DeliveryFailed": Reason(
        "The control plane met a defect of its own with this deployment.",
        "Read the server's log and report it; it is tried again by itself.",
    ),
    "DesiredStateInvalid": Reason("The data plane could not read this document.", "Upgrade the data plane."),
    "PlaneDiverged": Reason(
        "The data plane holds revisions that the control plane does not know, as after a restore from a backup.",
        "An operator begins a new epoch for the data plane; until then it keeps what it runs and is sent nothing.",
    ),
    "NoCapacity": Reason("The data plane has no room for it.", "Scale something down, or add capacity."),
    # declared, kept, not yet in force
    "NotYetInForce": Reason("It is valid and kept, but this version does not act on it yet.", "Nothing to do."),
    "InForce": Reason("All that is declared is in force.", "Nothing to do."),
}

REASONS = MappingProxyType(_TABLE)


def advice(reason: str) -> str | None:
    """Returns what to do about a reason, nothing for one that is unknown or asks for nothing."""
    known = REASONS.get(reason)
    return None if known is None or known.next_step == "Nothing to do." else known.next_step


def next_step(reason: str) -> str:
    """Returns what to do about a reason; raises `KeyError` for an unknown one."""
    return REASONS[reason].next_step
