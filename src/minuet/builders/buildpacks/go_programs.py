"""Which programs a Go module holds, decided as the compiler would: by folders, file names and build constraints."""

from __future__ import annotations

import platform
import posixpath
import re
from collections.abc import Iterator

from minuet.builders.tree import Tree

_MAX_SOURCES, _MAX_HEAD, _MAX_CONSTRAINT = 5000, 64 * 1024, 500
_PROGRAM = re.compile(r"^package main\b", re.MULTILINE)
_PACKAGE = re.compile(r"^package ", re.MULTILINE)
_CONSTRAINT = re.compile(r"^//go:build (.*)$", re.MULTILINE)
_WORD = re.compile(r"&&|\|\||[!()]|[\w.]+|\S")
_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
_TRUE = frozenset({"linux", "unix", "gc", _ARCHITECTURE})
_SYSTEMS = frozenset({
    "aix", "android", "darwin", "dragonfly", "freebsd", "hurd", "illumos", "ios", "js", "linux", "netbsd", "openbsd",
    "plan9", "solaris", "wasip1", "windows", "zos",
})  # fmt: skip
_ARCHITECTURES = frozenset({
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64",
    "s390x", "wasm",
})  # fmt: skip
_NOT_PACKAGES = frozenset({"vendor", "testdata", "node_modules"})


def programs(tree: Tree, module: str) -> list[tuple[str, str]]:
    """The folders that hold a program and the names of their binaries, the one to start first."""
    named = re.search(r"^module[ \t]+\"?([^\s\"]+)", module, re.MULTILINE)
    base = posixpath.basename(re.sub(r"/v\d+$", "", named[1])) if named else "app"
    folders = set(_folders(tree))
    commands = [folder for folder in folders if folder.startswith("cmd/")]
    preferred = (".", f"cmd/{base}", *(commands if len(commands) == 1 else ()),
                 "cmd/server", "server", "cmd/api", "cmd/app", "cmd/web")  # fmt: skip
    ranks = {folder: rank for rank, folder in reversed(list(enumerate(preferred)))}
    ordered = sorted(folders, key=lambda folder: (ranks.get(folder, len(preferred)), folder.count("/"), folder))
    names = [base if folder == "." else posixpath.basename(folder) for folder in ordered]
    return [(folder, name) for index, (folder, name) in enumerate(zip(ordered, names, strict=True))
            if name not in names[:index]]  # fmt: skip


def _folders(tree: Tree) -> Iterator[str]:
    modules = {posixpath.dirname(path) for path in tree.files("/go.mod", _MAX_SOURCES)}
    found = set()
    for path in tree.files(".go", _MAX_SOURCES):
        folder = posixpath.dirname(path)
        if folder in found or not _is_package(folder, modules) or not _is_for_this_machine(posixpath.basename(path)):
            continue
        if _is_program(tree.read(path, _MAX_HEAD) or ""):
            found.add(folder)
            yield folder or "."


def _is_package(folder: str, modules: set[str]) -> bool:
    """Whether the module's own packages may lie there: not in folders that Go passes over, nor in another module."""
    parts = folder.split("/") if folder else []
    passed_over = any(part in _NOT_PACKAGES or part.startswith(("_", ".")) for part in parts)
    return not passed_over and not any("/".join(parts[: length + 1]) in modules for length in range(len(parts)))


def _is_for_this_machine(name: str) -> bool:
    if name.startswith(("_", ".")) or name.endswith("_test.go"):
        return False
    words = name.removesuffix(".go").split("_")[1:][-2:]
    if words and words[-1] in _ARCHITECTURES and words.pop() != _ARCHITECTURE:
        return False
    return not words or words[-1] not in _SYSTEMS or words[-1] == "linux"


def _is_program(text: str) -> bool:
    clause = _PACKAGE.search(text)
    if clause is None or not _PROGRAM.match(text, clause.start()):
        return False
    head = text[: clause.start()]
    constraint = _CONSTRAINT.search(head)
    # The form before Go 1.17; only its commonest word is worth reading.
    return holds(constraint[1]) if constraint else not re.search(r"^// \+build +ignore\b", head, re.MULTILINE)


def holds(constraint: str) -> bool:
    """Whether a build constraint is satisfied where builds run; one that cannot be read is not."""
    words = _WORD.findall(constraint[:_MAX_CONSTRAINT].partition("//")[0])
    try:
        value = _either(words)
    except (IndexError, ValueError, RecursionError):
        return False
    return value and not words


def _either(words: list[str]) -> bool:
    value = _both(words)
    while words[:1] == ["||"]:
        words.pop(0)
        value = _both(words) or value
    return value


def _both(words: list[str]) -> bool:
    value = _one(words)
    while words[:1] == ["&&"]:
        words.pop(0)
        value = _one(words) and value
    return value


def _one(words: list[str]) -> bool:
    word = words.pop(0)
    if word == "!":
        return not _one(words)
    if word == "(":
        value = _either(words)
        if words.pop(0) != ")":
            raise ValueError(word)
        return value
    if not re.fullmatch(r"[\w.]+", word):
        raise ValueError(word)
    return word in _TRUE or bool(re.fullmatch(r"go1\.\d+", word))
