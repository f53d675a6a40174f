"""The log of a build: whole lines, bounded, clean, and readable while it is written."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from minuet.builders.logs import BuildLog, follow
from minuet.kernel.secrets import Secret


def written(path: Path) -> list[str]:
    return [json.loads(line)["message"] for line in path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs/build.jsonl"


@pytest.mark.parametrize(
    ("output", "lines"),
    [
        (b"one\ntwo\n", ["one", "two"]),
        (b"10%\r50%\r100%\n", ["100%"]),
        (b"windows\r\n", ["windows"]),
        (b"\x1b[31mred\x1b[0m \x1b]0;title\x07text\n", ["red text"]),
        (b"\x00bell\x07\x9b\n", ["bell\ufffd"]),
        (b"\xff\xfe\n", ["\ufffd\ufffd"]),
        ("tab\there\u2028next\n".encode(), ["tab\therenext"]),
        (b"no end", ["no end"]),
    ],
)
def test_output_becomes_clean_lines_however_it_is_cut(path: Path, output: bytes, lines: list[str]) -> None:
    log = BuildLog(path, 10_000)
    for byte in output:
        log.feed(bytes([byte]))
    log.close()
    assert written(path) == lines


def test_a_name_that_is_no_text_or_holds_line_ends_stays_one_line(path: Path) -> None:
    log = BuildLog(path, 10_000)
    log.say('left out \udcff\n{"forged": 1}')
    log.close()
    assert written(path) == ['left out ?{"forged": 1}']


def test_secrets_never_reach_the_disk(path: Path) -> None:
    log = BuildLog(path, 10_000, (Secret("s3cret-token"),))
    log.feed(b"fatal: https://git:s3cret-token@example.com\n")
    log.close()
    assert "s3cret" not in path.read_text()
    assert "s3cret" not in "".join(log.tail)


def test_a_full_log_counts_what_it_drops_and_keeps_the_tail(path: Path) -> None:
    log = BuildLog(path, 1000)
    for number in range(100):
        log.say(f"line {number}")
    log.close()
    lines = written(path)
    assert lines[-1] == f"{100 - len(lines) + 1} lines were dropped, the log was full"
    assert path.stat().st_size < 2000
    assert log.tail[-2] == "line 99"


def test_a_line_without_an_end_takes_no_memory(path: Path) -> None:
    log = BuildLog(path, 10**6)
    for _ in range(100):
        log.feed(b"x" * 5000)
    log.close()
    assert max(len(line) for line in written(path)) <= 4096


async def test_it_is_followed_to_its_end_while_it_is_written(path: Path) -> None:
    ended = path.with_suffix(".ended")
    seen = follow(path, ended, wait=True)
    log = BuildLog(path, 10_000)
    log.say("first")
    assert b"first" in await anext(seen)
    coming = asyncio.ensure_future(anext(seen))
    log.say("second")
    assert b"second" in await coming
    log.close()
    ended.touch()
    assert [data async for data in seen] == []


async def test_half_a_line_is_not_shown(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(b'{"a": 1}\n{"b"')
    shown = [data async for data in follow(path, path.with_suffix(".ended"), wait=False)]
    assert shown == [b'{"a": 1}\n']
