"""Names and the host labels that follow from them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minuet.kernel import names
from minuet.kernel.errors import Invalid

NAME = st.from_regex(r"[a-z](?:[a-z0-9]|-(?=[a-z0-9])){0,55}", fullmatch=True).filter(lambda n: len(n) <= 56)


@pytest.mark.parametrize("value", ["web", "a", "shop-2", "x" * 56])
def test_a_legal_name_is_returned_as_it_is(value: str) -> None:
    assert names.check_name("name", value) == value


@pytest.mark.parametrize("value", ["", "Web", "2shop", "-a", "a-", "a--b", "a_b", "a" * 57, "café", "a\n", "a/b"])
def test_an_illegal_name_is_refused_and_the_field_is_named(value: str) -> None:
    with pytest.raises(Invalid) as caught:
        names.check_name("project.name", value)
    assert caught.value.violations[0].field == "project.name"


def test_a_refused_name_comes_with_a_legal_suggestion() -> None:
    with pytest.raises(Invalid) as caught:
        names.check_name("name", "My Shop!")
    assert caught.value.hint == "for example my-shop"


def test_text_with_control_characters_is_refused() -> None:
    with pytest.raises(Invalid):
        names.check_text("displayName", "a\x1b[31mred")


def test_the_default_organization_is_left_out_of_the_host() -> None:
    assert names.host_label("default", "shop", "web", "development") == "web--shop--development"


def test_a_label_with_reserved_hyphens_is_hashed() -> None:
    assert not re.match(r"..--", names.host_label("default", "shop", "xn", "development"))


@given(NAME, NAME, NAME, NAME)
def test_every_label_is_a_legal_dns_label(organization: str, project: str, component: str, environment: str) -> None:
    label = names.host_label(organization, project, component, environment)
    assert len(label) <= 63
    assert re.fullmatch(r"[a-z][a-z0-9-]*[a-z0-9]|[a-z]", label)
    assert label[2:4] != "--"


@given(st.tuples(NAME, NAME, NAME, NAME), st.tuples(NAME, NAME, NAME, NAME))
def test_different_components_never_share_a_label(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    if one != other:
        assert names.host_label(*one) != names.host_label(*other)


def test_names_that_could_be_joined_alike_stay_apart() -> None:
    labels = {
        names.host_label("default", "a-b", "c", "d"),
        names.host_label("default", "a", "c-b", "d"),
        names.host_label("a", "b", "c", "d"),
        names.host_label("default", "b", "c", "d"),
    }
    assert len(labels) == 4


def test_an_unknown_key_names_the_nearest_known_one() -> None:
    error = names.unknown_key("buildConfigs", "buildPackLangVerson", ["buildPackLangVersion", "port"])
    assert error.hint == "did you mean buildPackLangVersion?"
