"""`minuet up` and its end: signals at every moment, starts that fail, ports that are taken, choices that stay."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from minuet.client import contexts
from minuet.server import lock, survivors
from tests.given.platform import Held, Platform, eventually

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("bwrap"), reason="needs root and bubblewrap"),
]


@pytest.fixture
def own(open_path: Path) -> Iterator[Platform]:
    """A platform of the test's own; whatever happens, nothing of it is left."""
    platform = Platform(open_path)
    yield platform
    platform.cli("down", "--now", f"--data={platform.data}", check=False)
    eventually(lambda: not platform.processes(), what="everything was killed")


def launcher_of(platform: Platform) -> int:
    """The pid of the launcher, as soon as there is one."""
    found = eventually(
        lambda: [pid for pid, command in platform.processes().items() if "minuet launcher" in command],
        what="the launcher was started",
    )
    return int(found[0])


def at_spawn(platform: Platform, held: Held) -> None:
    """The launcher is there and has no socket yet."""
    launcher_of(platform)


def at_start(platform: Platform, held: Held) -> None:
    eventually((platform.data / "server" / "log").exists, what="the server was started")


def at_push(platform: Platform, held: Held) -> None:
    held.until("git push")


def when_up(platform: Platform, held: Held) -> None:
    held.until("Minuet is up")


@pytest.mark.parametrize(
    ("moment", "number"),
    [(at_spawn, signal.SIGINT), (at_start, signal.SIGTERM), (at_push, signal.SIGINT), (when_up, signal.SIGTERM)],
)
def test_a_signal_stops_everything_at_any_moment(own: Platform, moment: object, number: signal.Signals) -> None:
    held = own.hold("--sample")
    moment(own, held)  # type: ignore[operator]
    held.child.send_signal(number)
    assert held.ends() == 0, held.said
    assert held.said.rstrip().endswith("Stopped.")
    assert own.processes() == {}
    assert survivors.of(own.data) == ()


def test_a_second_signal_ends_everything_at_once(own: Platform) -> None:
    held = own.hold()
    held.until("Minuet is up")
    launcher = launcher_of(own)
    os.kill(launcher, signal.SIGSTOP)
    held.child.send_signal(signal.SIGINT)
    held.until("Stopping ...")
    held.child.send_signal(signal.SIGINT)
    assert held.ends(20) == 130
    eventually(lambda: not own.processes(), what="nothing is left")


def test_a_start_that_fails_leaves_running_what_ran(own: Platform) -> None:
    own.up()
    os.kill(lock.holder(own.data) or 0, signal.SIGKILL)
    before = survivors.of(own.data)
    (own.home / "contexts.toml").write_text("this is not TOML")
    told = own.up()
    assert "You are not signed in" in told.stderr
    os.kill(lock.holder(own.data) or 0, signal.SIGKILL)
    (own.data / "minuet.toml").write_text("this is not TOML")
    refused = own.up(check=False)
    assert refused.returncode == 2, refused.stderr
    assert set(before) <= set(survivors.of(own.data)), "nothing of what ran was touched"


def test_a_first_start_that_fails_leaves_nothing(own: Platform) -> None:
    own.data.mkdir(parents=True)
    (own.data / "server").mkdir()
    (own.data / "server" / "minuet.db").write_text("this is no database " * 100)
    refused = own.up(check=False)
    assert refused.returncode == 7, refused.stderr
    assert "the server does not start" in refused.stderr
    assert own.processes() == {}


@pytest.mark.parametrize("name", ["api", "builder", "gateway"])
def test_a_port_that_is_taken_is_named_before_anything_starts(own: Platform, name: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", own.ports[name]))
        other.listen()
        refused = own.up(check=False)
    assert refused.returncode == 5, refused.stderr
    assert f"127.0.0.1:{own.ports[name]} cannot be listened on" in refused.stderr
    assert f"--{name}-port" in refused.stderr
    assert own.processes() == {}
    assert not (own.data / "minuet.toml").exists(), "a refused choice is not remembered"


def test_a_second_start_is_refused_and_changes_nothing(own: Platform) -> None:
    own.up()
    before = (own.data / "minuet.toml").read_text()
    for how in ("--detach", "--sample"):
        refused = own.cli("up", how, f"--data={own.data}", "--api-port=9", check=False)
        assert refused.returncode == 5
        assert "runs already" in refused.stderr
    assert (own.data / "minuet.toml").read_text() == before
    for log in (own.data / "supervisor.log", own.data / "launcher" / "log"):
        with log.open("ab") as file:
            file.write(b"x" * (5 * 1024 * 1024))
    eventually(lambda: (own.data / "supervisor.log").stat().st_size < 1024**2, what="its log is kept short")
    eventually(lambda: (own.data / "launcher" / "log").stat().st_size < 1024**2, what="the launcher's as well")


def test_down_stops_what_lost_both_supervisor_and_launcher(own: Platform) -> None:
    own.up()
    os.kill(lock.holder(own.data) or 0, signal.SIGKILL)
    os.kill(launcher_of(own), signal.SIGKILL)
    assert own.processes() != {}
    assert own.down().returncode == 0
    assert own.processes() == {}
    again = own.down()
    assert (again.returncode, "Nothing of" in again.stderr) == (0, True)


def test_down_in_a_wrong_folder_says_so_and_makes_nothing(tmp_path: Path, own: Platform) -> None:
    refused = own.cli("down", f"--data={tmp_path / 'elsewhere'}", check=False)
    assert refused.returncode == 3
    assert list(tmp_path.iterdir()) == []


def test_an_older_database_is_upgraded_at_the_next_start_after_one_backup(own: Platform) -> None:
    own.up()
    own.cli("create", "organization", "kept")
    assert own.down().returncode == 0
    database = own.data / "server" / "minuet.db"
    downgrade(database)
    own.up()
    assert own.cli("status", check=False).returncode == 0
    assert "kept" in own.cli("list", "organizations").stdout
    made = list((own.data / "server" / "backups").glob("*.db"))
    assert len(made) == 1
    with sqlite3.connect(made[0]) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert copy.execute("SELECT version_num FROM alembic_version").fetchone() == ("0001",)
        assert ("kept",) in copy.execute("SELECT name FROM organization").fetchall()


def downgrade(path: Path) -> None:
    """Brings a database to the schema of the first version."""
    import sqlalchemy as sa
    from alembic import command

    from minuet.server import migrations

    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config = migrations._config()
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
    engine.dispose()


def test_a_context_that_somebody_uses_is_not_changed(own: Platform) -> None:
    other = contexts.Context("https://minuet.example.com", "token", project="theirs")
    os.environ["MINUET_CONFIG"] = str(own.home / "contexts.toml")
    try:
        contexts.save("work", other)
        told = own.up()
        name = f"local-{own.ports['api']}"
        assert f"context use {name}" in told.stderr
        assert contexts.load()[0] == "work"
        own.cli("context", "use", name, "--project", "mine")
        own.down()
        own.up()
        current, known = contexts.load()
        assert (current, known[name].project) == (name, "mine")
    finally:
        del os.environ["MINUET_CONFIG"]
