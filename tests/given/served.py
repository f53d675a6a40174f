"""A component with two builds, deployed in turn while things happen to the platform."""

from __future__ import annotations

import urllib.error
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.given import victims
from tests.given.load import Load
from tests.given.platform import Platform, eventually
from tests.given.repository import Repository, python_app

CONTROL = ("supervisor", "launcher", "server", "builder", "agent", "gateway")
"""Processes whose death no request may notice; `gateway` is Envoy's shim, not Envoy."""


@dataclass
class Served:
    """Of the builds `one` and `two` one is deployed and the other is deployed next."""

    platform: Platform
    name: str
    builds: dict[str, str]
    now: str = "one"

    @classmethod
    def make(cls, platform: Platform, name: str, directory: Path, replicas: int = 1) -> Served:
        """Creates the component in the project `shop`, builds both versions, deploys the first."""
        repository = Repository(directory)
        builds = {}
        repository.commit(python_app("one"))
        platform.cli(
            *("create", "component", name, "--project", "shop", "--type", "service", "--repo", repository.url),
            *("--build-configs", "buildpack=python,buildPackLangVersion=3.11"),
        )
        for version in ("one", "two"):
            repository.commit(python_app(version))
            platform.cli("create", "build", name, "--project", "shop")
            builds[version] = platform.json("list", "builds", "--project", "shop", "--component", name)["items"][0][
                "id"
            ]
        made = cls(platform, name, builds)
        platform.cli("create", "deployment", name, *made.where, "--build-id", builds["one"])
        if replicas > 1:
            made.scale(replicas)
        return made

    @property
    def where(self) -> tuple[str, ...]:
        return ("--project", "shop", "--env", "Development")

    @property
    def next(self) -> str:
        return "two" if self.now == "one" else "one"

    def load(self) -> Load:
        return Load(self.platform.ports["gateway"], self.platform.url(self.name).split("/")[2])

    def fetch(self) -> tuple[int, str]:
        return self.platform.fetch(self.platform.url(self.name), timeout=2)

    def serves(self) -> bool:
        return self.fetch() == (200, self.now)

    def ready(self) -> int:
        state = self.platform.call(f"projects/shop/components/{self.name}/environments/development")
        return sum(1 for instance in state["instances"] if instance["ready"])

    def scale(self, replicas: int) -> None:
        self.platform.cli("scale", self.name, *self.where, "--replicas", str(replicas))
        eventually(lambda: self.ready() == replicas, what=f"{replicas} instances are ready")

    def deploy_next(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Has the other build accepted by the API, lets the fault happen, and sees the deployment to its end."""
        place = f"projects/shop/components/{self.name}/deployments"
        accepted = self.platform.call(place, {"environment": "development", "build": self.builds[self.next]})
        meanwhile()
        self.now = self.next
        eventually(lambda: self._phase(accepted["id"]) == "Ready", 60, f"{accepted['id']} becomes ready")
        eventually(self.serves, 10, f"{self.name} serves {self.now}")

    def _phase(self, deployment: str) -> str | None:
        try:
            return str(self.platform.call(f"projects/shop/components/{self.name}/deployments/{deployment}")["phase"])
        except (urllib.error.URLError, OSError):
            return None  # the server is on its way back


def kill_and_bring_back(platform: Platform, victim: str) -> None:
    """Kills one process of `CONTROL`; what nobody supervises is started again the way a person would."""
    if victim == "supervisor":
        victims.kill(victims.supervisor(platform))
        platform.up()
    elif victim == "launcher":
        victims.kill(victims.launcher(platform))
    else:
        victims.kill(victims.role(platform, victim))


def is_whole(platform: Platform) -> bool:
    """Whether `minuet status` finds everything in order."""
    return platform.cli("status", check=False).returncode == 0
