"""What a component may be called, where its source may lie, and what its builds may be told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minuet.control.builds import model as builds
from minuet.control.catalog import model
from minuet.kernel.errors import Invalid, NotReady
from minuet.protocol.building import BuildpackOffer
from minuet.render.inputs import ComponentType

PYTHON = BuildpackOffer(
    name="python", versions=("3.11", "3.12"), component_types=("service",), required=("buildPackLangVersion",)
)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/a/b.git",
        "http://example.com:8080/a",
        "ssh://git@example.com/a/b.git",
        "git@example.com:a/b.git",
    ],
)
def test_repository_urls_that_a_builder_can_fetch(url: str) -> None:
    assert model.check_repository(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "https://user:password@example.com/a.git",
        "https://token@example.com/a.git",
        "ssh://git:secret@example.com/a.git",
        "file:///etc/passwd",
        "ext::sh -c id",
        "https://example.com/a b",
        "https://example.com/",
        "https:///a",
        "https://example.com:0/a",
        "https://example.com:99999/a",
        "https://example.com/a?token=1",
        "-oProxyCommand=x:y",
        "/etc",
        "https://[::1/a",
        "x" * 501,
    ],
)
def test_repository_urls_that_are_refused(url: str) -> None:
    with pytest.raises(Invalid):
        model.check_repository(url)


def test_files_are_allowed_by_a_setting_only() -> None:
    assert model.check_repository("file:///srv/a.git", files_allowed=True)


@pytest.mark.parametrize("branch", ["-x", "a..b", "a b", "a/", "/a", "a.lock", "a@{1}", "", "x" * 201, "a~1"])
def test_names_that_are_no_branches(branch: str) -> None:
    with pytest.raises(Invalid):
        model.check_branch(branch)


@pytest.mark.parametrize(("given_", "kept"), [(".", "."), ("/", "."), ("", "."), ("./a/", "a"), ("/a//b", "a/b")])
def test_directories_have_one_form(given_: str, kept: str) -> None:
    assert model.check_directory(given_) == kept


@pytest.mark.parametrize("directory", ["..", "a/../../b", ".git", "a/.git/hooks", "a\\b", "a\nb"])
def test_directories_outside_are_refused(directory: str) -> None:
    with pytest.raises(Invalid):
        model.check_directory(directory)


def test_an_unknown_build_config_names_the_nearest() -> None:
    with pytest.raises(Invalid) as caught:
        model.check_build_configs({"buildPackLangVerson": "3.11"})
    assert caught.value.hint == "did you mean buildPackLangVersion?"


@given(st.text(max_size=30))
def test_a_port_is_a_number_or_refused(text: str) -> None:
    try:
        kept = model.check_build_configs({"port": text})
    except Invalid:
        return
    assert kept == {} or 1 <= int(kept["port"]) <= 65535


@pytest.mark.parametrize(
    ("directory", "changed", "is_touched"),
    [
        (".", ("a",), True),
        (".", (), False),
        ("web", ("web/app.py",), True),
        ("web", ("web",), True),
        ("web", ("website/app.py", "other"), False),
    ],
)
def test_a_component_is_touched_by_changes_below_its_directory(
    directory: str, changed: tuple[str, ...], is_touched: bool
) -> None:
    assert model.is_touched(directory, changed) is is_touched


@pytest.mark.parametrize("version", ["3.11", "3.11.x", "3.11.4", "3"])
def test_versions_on_offer_in_their_spellings(version: str) -> None:
    builds.check_offer([PYTHON], ComponentType.SERVICE, {"buildpack": "python", "buildPackLangVersion": version})


@pytest.mark.parametrize(
    ("configs", "named"),
    [
        ({"buildpack": "python", "buildPackLangVersion": "9.9"}, "3.11"),
        ({"buildpack": "pyton", "buildPackLangVersion": "3.11"}, "python"),
        ({"buildpack": "python"}, "buildPackLangVersion"),
    ],
)
def test_what_is_not_on_offer_is_refused_with_what_is(configs: dict[str, str], named: str) -> None:
    with pytest.raises(Invalid) as caught:
        builds.check_offer([PYTHON], ComponentType.SERVICE, configs)
    assert named in f"{caught.value.message} {caught.value.hint}"


def test_before_a_builder_registered_nobody_knows_what_is_on_offer() -> None:
    with pytest.raises(NotReady):
        builds.check_offer([], ComponentType.SERVICE, {"buildpack": "python"})
    builds.check_offer([], ComponentType.SERVICE, {})


@pytest.mark.parametrize(
    "url",
    [
        "https://localhost/a.git",
        "http://api.localhost./a",
        "http://127.0.0.1:8400/a",
        "http://127.1/a",
        "http://2130706433/a",
        "http://0x7f.1/a",
        "http://0.0.0.0/a",
        "http://[::1]/a",
        "http://[::ffff:127.0.0.1]/a",
        "http://169.254.169.254/latest",
        "http://metadata.google.internal/a",
        "ssh://git@127.0.0.1/a",
        "git@localhost:a/b.git",
    ],
)
def test_a_repository_on_the_builders_own_machine_needs_the_operators_leave(url: str) -> None:
    with pytest.raises(Invalid, match="builds may not reach"):
        model.check_repository(url)
    assert model.check_repository(url, files_allowed=True) == url


@pytest.mark.parametrize("url", ["https://10.0.0.5/a.git", "https://1and1.example/a", "git@forge.example:a/b.git"])
def test_a_repository_elsewhere_may_be_named_by_address(url: str) -> None:
    assert model.check_repository(url) == url
