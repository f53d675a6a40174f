"""Fetching: what stood in the way is named, credentials stay unseen, and a hostile repository gets nowhere."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from minuet.protocol.building import RepositoryCredential
from tests.given.git_server import git_server
from tests.given.platform import eventually, free_port
from tests.given.repository import Repository, python_app
from tests.given.workbench import LIMITS, Workbench, failed

TOKEN = "ghp_0123456789abcdefSECRET"


@pytest.fixture(scope="module")
def source(bench: Workbench) -> Repository:
    made = bench.repository(python_app("one"))
    made.commit(python_app("two", **{"inner/app.py": "print(1)\n", "inner/Procfile": "web: python app.py\n"}))
    return made


def test_a_commit_can_be_named(bench: Workbench, source: Repository) -> None:
    first = source.git("rev-parse", "HEAD~1").stdout.strip()
    built = bench.build(source, commit=first)
    assert built.result.commit == first
    assert b'"one"' in built.read("app.py")
    assert (built.result.commit_author, built.result.commit_message) == ("Test", "Change something")


def test_a_directory_of_the_repository_is_built_alone(bench: Workbench, source: Repository) -> None:
    built = bench.build(source, directory="/inner/")
    assert built.read("app.py") == b"print(1)\n"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"branch": "no-such-branch"}, "BranchNotFound"),
        ({"branch": "--upload-pack=touch /tmp/owned"}, "BranchNotFound"),
        ({"commit": "0" * 40}, "BranchNotFound"),
        ({"commit": "HEAD; touch /tmp/owned"}, "BranchNotFound"),
        ({"directory": "no/such/place"}, "DirectoryNotFound"),
        ({"directory": "../../.."}, "DirectoryNotFound"),
        ({"directory": "app.py"}, "DirectoryNotFound"),
    ],
)
def test_what_is_not_in_the_repository_is_named(
    bench: Workbench, source: Repository, changes: dict[str, str], reason: str
) -> None:
    failed(bench.build(source, **changes), reason)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("file:///no/such/place.git", "RepositoryNotFound"),
        ("https://no-such-host.invalid/a.git", "RepositoryUnreachable"),
        ("ext::sh -c touch% /tmp/owned", "RepositoryNotFound"),
        ("ssh://git@host.invalid/a.git", "AuthenticationRequired"),
    ],
)
def test_a_repository_that_cannot_be_read_is_named(bench: Workbench, url: str, reason: str) -> None:
    failed(bench.build(url), reason)


def test_a_host_that_does_not_answer_is_told_from_one_without_that_repository(
    bench: Workbench, source: Repository
) -> None:
    failed(bench.build(f"http://127.0.0.1:{free_port()}/a.git"), "RepositoryUnreachable")
    with git_server(source.path.parent) as url:
        failed(bench.build(f"{url}/nothing-here"), "RepositoryNotFound")


def test_a_private_repository_asks_for_credentials_and_takes_them(bench: Workbench, source: Repository) -> None:
    with git_server(source.path.parent, TOKEN) as url:
        place = f"{url}/{source.path.name}/.git"
        failed(bench.build(place), "AuthenticationRequired", "is private, or does not exist")
        wrong = bench.build(place, credential=RepositoryCredential(token="not-this-one"))
        failed(wrong, "AuthenticationRequired", "not open to that credential")
        built = bench.build(place, credential=RepositoryCredential(token=TOKEN))
    assert built.result.commit == source.git("rev-parse", "HEAD").stdout.strip()
    assert TOKEN not in bench.log(built.order.build) + bench.own_log() + built.result.wire()


def test_a_hosted_repository_without_a_push_says_so(bench: Workbench) -> None:
    failed(bench.build(None, project_id="prj_never_pushed"), "RepositoryNotFound", "pushed")


def test_a_repository_larger_than_allowed_is_named(bench: Workbench) -> None:
    source = bench.repository(python_app() | {"huge.bin": os.urandom(40 * 2**20)})
    limits = LIMITS.model_copy(update={"disk": 20 * 2**20})
    failed(bench.build(source, limits=limits), "RepositoryTooLarge")


def test_a_nasty_repository_gets_nothing_and_breaks_nothing(bench: Workbench) -> None:
    source = bench.repository(python_app())
    for name, target in {
        "passwd": "/etc/passwd", "up": "../../../../etc/hostname", "keys": "/run/minuet/data/builder/store/signing.key",
        "loop": "loop", "sub/app": "../app.py",
    }.items():  # fmt: skip
        (source.path / name).parent.mkdir(exist_ok=True)
        (source.path / name).symlink_to(target)
    hook = source.path / "hooks/post-checkout"
    hook.parent.mkdir()
    hook.write_text("#!/bin/sh\ntouch /source/owned\n")
    hook.chmod(0o755)
    source.git("config", "core.hooksPath", "hooks")
    source.commit(
        {
            ".gitattributes": "*.lfs filter=lfs\n*.evil filter=evil\n",
            "big.lfs": "version 1\noid sha256:00\nsize 9\n",
            "x.evil": "x\n",
            ".gitmodules": '[submodule "a"]\n\tpath = a\n\turl = ext::sh -c "touch /tmp/owned"\n',
            "latin.txt": "caf\xe9\n".encode("latin-1"),
            "na\u00efve \u2603.py": "snow = 1\n",
            "with\nnewline.txt": "x",
        },
        "Evil \x1b[31mred\x1b]0;title\x07 message",
    )
    built = bench.build(source)
    files = built.files()
    assert {"passwd", "up", "keys"}.isdisjoint(files), "a link that leads out was followed or kept"
    assert files["sub/app"].linkname == "../app.py"
    assert "owned" not in files, "a hook of the repository ran"
    assert built.read("latin.txt") == "caf\xe9\n".encode("latin-1")
    assert any("submodules" in warning for warning in built.result.warnings)
    assert "\x1b" not in (built.result.commit_message or "")
    assert "red" in (built.result.commit_message or "")
    assert all(character >= " " or character == "\n" for character in built.log)


@pytest.fixture(scope="module")
def ssh(bench: Workbench, source: Repository, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A real ssh server that lets one key in, and runs Git for it."""
    program = shutil.which("sshd") or "/usr/sbin/sshd"
    if not Path(program).exists():
        pytest.skip("needs sshd")
    folder = tmp_path_factory.mktemp("ssh")
    for name in ("host", "deploy", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    (folder / "authorized").write_text((folder / "deploy.pub").read_text())
    port = free_port()
    (folder / "config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
        f"StrictModes no\nPidFile none\nPasswordAuthentication no\nUsePAM no\nPermitRootLogin yes\n"
        f"SetEnv GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0=*\n"
    )
    # The server wants a user and a folder of its own, which this machine need not have.
    (folder / "passwd").write_text(Path("/etc/passwd").read_text() + "sshd:x:65533:65534::/run/sshd:/bin/false\n")
    room = ["bwrap", "--dev-bind", "/", "/", "--ro-bind", str(folder / "passwd"), "/etc/passwd", "--tmpfs", "/run",
            "--dir", "/run/sshd", "--die-with-parent"]  # fmt: skip
    command = [*room, program, "-D", "-e", "-f", str(folder / "config")]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stderr=log, stdout=log)
    eventually(lambda: _listens(port), 10, "sshd listens")
    yield f"ssh://root@127.0.0.1:{port}{source.path}", folder
    server.terminate()
    server.wait(10)


def _listens(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_deploy_key_opens_a_repository_and_another_key_does_not(
    bench: Workbench, source: Repository, ssh: tuple[str, Path]
) -> None:
    url, folder = ssh
    key = (folder / "deploy").read_text()
    built = bench.build(url, credential=RepositoryCredential(deploy_key=key))
    assert built.result.commit == source.git("rev-parse", "HEAD").stdout.strip(), built.log
    assert key.splitlines()[1] not in bench.log(built.order.build) + bench.own_log()
    stranger = RepositoryCredential(deploy_key=(folder / "stranger").read_text())
    failed(bench.build(url, credential=stranger), "AuthenticationRequired")


def test_a_host_that_changed_its_key_is_not_believed(bench: Workbench, ssh: tuple[str, Path]) -> None:
    url, folder = ssh
    credential = RepositoryCredential(deploy_key=(folder / "deploy").read_text())
    assert bench.build(url, credential=credential).artifact
    known = bench.directory / "known_hosts/org_1"
    before = known.read_text()
    other = (folder / "stranger.pub").read_text().split()[1]
    known.write_text(before.replace(before.split()[2], other))
    failed(bench.build(url, credential=credential), "RepositoryUnreachable", "host key")
    known.write_text(before)
