"""Archives are unpacked trusting nothing in them."""

import hashlib
import io
import os
import stat
import tarfile
import tempfile
from pathlib import Path

import pytest

from minuet.kernel.errors import Exhausted, Invalid
from tests.given.runtime import Installation

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


def member(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644, size: int = 0
) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode, made.size = kind, link, mode, size
    return made


def archive(*members: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for item in members:
            tar.addfile(item, io.BytesIO(b"x" * item.size) if item.isreg() else None)
    return buffer.getvalue()


async def unpack(given: Installation, data: bytes, digest: str | None = None) -> Path:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        name = digest or f"sha256:{hashlib.sha256(data).hexdigest()}"
        path = await given.client().unpack(file.fileno(), name)
    return given.data / path.relative_to("/run/minuet/data")


@pytest.mark.parametrize(
    "members",
    [
        [member("/etc/absolute", size=1)],
        [member("../outside", size=1)],
        [member("a/../../outside", size=1)],
        [member("link", tarfile.SYMTYPE, "../../secret")],
        [member("link", tarfile.SYMTYPE, "/etc/shadow")],
        [member("link", tarfile.SYMTYPE, "/usr/../etc/shadow")],
        [member("d", tarfile.SYMTYPE, "sub"), member("d/file", size=1)],
        [member("hard", tarfile.LNKTYPE, "/etc/passwd")],
        [member("hard", tarfile.LNKTYPE, "../../secret")],
        [member("device", tarfile.CHRTYPE)],
        [member("pipe", tarfile.FIFOTYPE)],
    ],
)
async def test_an_attack_is_refused_and_leaves_nothing(given: Installation, members: list[tarfile.TarInfo]) -> None:
    with pytest.raises(Invalid) as refused:
        await unpack(given, archive(*members))
    assert refused.value.code == "BadArchive"
    assert list((given.plane / "artifacts/layers").iterdir()) == []


async def test_a_wrong_digest_is_refused(given: Installation) -> None:
    with pytest.raises(Invalid) as refused:
        await unpack(given, archive(member("file", size=1)), "sha256:" + "0" * 64)
    assert refused.value.code == "BadDigest"
    assert await given.client().layers() == frozenset()


async def test_garbage_is_refused(given: Installation) -> None:
    with pytest.raises(Invalid):
        await unpack(given, b"not a tar at all" * 100)


async def test_more_entries_than_allowed_are_refused(given: Installation) -> None:
    given.kill()
    with (given.data / "launcher/settings.toml").open("a") as file:
        file.write("unpacked_entries = 5\n")
    await given.start()
    with pytest.raises(Exhausted):
        await unpack(given, archive(*(member(f"f{index}", size=1) for index in range(6))))


async def test_what_is_harmless_arrives_and_only_tenants_may_read_it(given: Installation) -> None:
    good = [
        member("bin", tarfile.DIRTYPE, mode=0o777),
        member("bin/tool", mode=0o4755, size=3),
        member("bin/again", tarfile.LNKTYPE, "bin/tool"),
        member("near", tarfile.SYMTYPE, "bin/tool"),
        member("python", tarfile.SYMTYPE, "/usr/bin/python3"),
    ]
    folder = await unpack(given, archive(*good))
    tool = folder / "bin/tool"
    assert tool.read_bytes() == b"xxx"
    assert stat.S_IMODE(tool.stat().st_mode) == 0o750
    assert (folder / "near").readlink() == Path("bin/tool")
    assert not folder.stat().st_mode & 0o007
    assert tool.stat().st_uid not in (0, os.getuid())
    assert await unpack(given, archive(*good)) == folder
    (digest,) = await given.client().layers()
    await given.client().remove_layer(digest)
    assert not folder.exists()
