"""Creates may be repeated, lists are paged, changes notice each other."""

from __future__ import annotations

import concurrent.futures

import pytest

from tests.given import servers
from tests.given.servers import Server, Tenant


def test_a_repeated_create_gives_the_first_answer(tenant: Tenant) -> None:
    headers = {"Idempotency-Key": "k1"}
    first = tenant.client.post(f"{tenant.path}/tokens", json={"name": "ci"}, headers=headers)
    second = tenant.client.post(f"{tenant.path}/tokens", json={"name": "ci"}, headers=headers)
    assert first.status_code == second.status_code == 201
    assert first.json() == second.json()
    assert second.headers["idempotent-replayed"] == "true"
    assert len(tenant.client.get(f"{tenant.path}/tokens").json()["items"]) == 2


def test_a_key_with_another_body_is_a_conflict(tenant: Tenant) -> None:
    headers = {"Idempotency-Key": "k1"}
    tenant.client.post(f"{tenant.path}/tokens", json={"name": "ci"}, headers=headers)
    answer = tenant.client.post(f"{tenant.path}/tokens", json={"name": "cd"}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (409, "IdempotencyKeyReused")


def test_a_key_belongs_to_its_caller_and_route(server: Server, tenant: Tenant) -> None:
    headers = {"Idempotency-Key": "k1"}
    other = servers.tenant(server)
    one = tenant.client.post(f"{tenant.path}/tokens", json={"name": "ci"}, headers=headers).json()
    two = other.client.post(f"{other.path}/tokens", json={"name": "ci"}, headers=headers).json()
    assert one["id"] != two["id"]
    environment = tenant.client.post(f"{tenant.path}/environments", json={"name": "ci"}, headers=headers)
    assert environment.status_code == 201
    assert "dataPlane" in environment.json()


def test_a_refused_create_is_not_remembered(tenant: Tenant) -> None:
    headers = {"Idempotency-Key": "k1"}
    body = {"name": "pipe", "environments": ["development", "later"]}
    assert tenant.client.post(f"{tenant.path}/pipelines", json=body, headers=headers).status_code == 422
    tenant.client.post(f"{tenant.path}/environments", json={"name": "later"})
    assert tenant.client.post(f"{tenant.path}/pipelines", json=body, headers=headers).status_code == 201


@pytest.mark.parametrize("key", ["", "x" * 201])
def test_a_key_that_is_none_is_refused(tenant: Tenant, key: str) -> None:
    answer = tenant.client.post(f"{tenant.path}/tokens", json={"name": "ci"}, headers={"Idempotency-Key": key})
    assert answer.status_code == 422


def test_the_same_create_at_the_same_time_happens_once(tenant: Tenant) -> None:
    def create(_: int) -> tuple[int, str]:
        headers = {"Idempotency-Key": "race"}
        answer = tenant.client.post(f"{tenant.path}/tokens", json={"name": "ci"}, headers=headers)
        return answer.status_code, answer.json().get("id", answer.text)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(create, range(16)))
    assert len(answers) == 1
    assert answers.pop()[0] == 201


def test_the_same_name_at_the_same_time_is_taken_once(tenant: Tenant) -> None:
    def create(_: int) -> int:
        return tenant.client.post(f"{tenant.path}/environments", json={"name": "qa"}).status_code

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(create, range(16)))
    assert statuses.count(201) == 1
    assert statuses.count(409) == 15


def test_a_list_is_walked_in_pages_without_gap_or_repetition(tenant: Tenant) -> None:
    for number in range(7):
        tenant.client.post(f"{tenant.path}/environments", json={"name": f"e{number}"})
    names: list[str] = []
    cursor = None
    pages = 0
    while True:
        parameters = {"limit": 4} | ({"cursor": cursor} if cursor else {})
        page = tenant.client.get(f"{tenant.path}/environments", params=parameters).json()
        names += [item["name"] for item in page["items"]]
        pages += 1
        cursor = page["next"]
        if cursor is None:
            break
    assert names == sorted(["development", "production", *(f"e{number}" for number in range(7))])
    assert pages == 3


@pytest.mark.parametrize("limit", ["0", "201", "-1", "x"])
def test_a_limit_outside_its_bounds_is_refused(tenant: Tenant, limit: str) -> None:
    answer = tenant.client.get(f"{tenant.path}/environments?limit={limit}")
    assert (answer.status_code, answer.json()["violations"][0]["field"]) == (422, "limit")


def test_a_cursor_of_another_list_is_refused(tenant: Tenant) -> None:
    cursor = tenant.client.get(f"{tenant.path}/environments?limit=1").json()["next"]
    assert tenant.client.get(f"{tenant.path}/environments?limit=1&cursor={cursor}").status_code == 200
    for path, wrong in (
        ("pipelines", cursor),
        ("environments", "AAAA"),
        ("environments", "é"),
        ("environments", "WzFd"),
    ):
        assert tenant.client.get(f"{tenant.path}/{path}", params={"cursor": wrong}).status_code == 422


def test_one_thing_has_a_tag_that_changes_with_it(server: Server, tenant: Tenant) -> None:
    one = tenant.client.get(f"{tenant.path}/environments/development")
    assert one.headers["etag"] == tenant.client.get(f"{tenant.path}/environments/Development").headers["etag"]
    assert one.headers["etag"] != tenant.client.get(f"{tenant.path}/environments/production").headers["etag"]


def test_a_pipeline_passes_each_environment_once_and_only_known_ones(tenant: Tenant) -> None:
    twice = {"name": "p", "environments": ["development", "development"]}
    assert (
        tenant.client.post(f"{tenant.path}/pipelines", json=twice).json()["violations"][0]["field"] == "environments.1"
    )
    unknown = tenant.client.post(f"{tenant.path}/pipelines", json={"name": "p", "environments": ["nowhere"]})
    assert unknown.json()["violations"][0]["allowed"] == ["development", "production"]
