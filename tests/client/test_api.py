"""Every way an answer can be, or fail to be, ends in one family of errors."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from minuet.client import logs
from minuet.client.api import Api, path
from minuet.client.contexts import Context
from minuet.kernel import errors
from minuet.kernel.errors import FAMILIES, MinuetError
from minuet.web import problems as server_side
from tests.given import certificates, recorded
from tests.given.recorded import Answer, Recorded, document, event, problem, stream

ME = "GET /api/v1/me"


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_survives_the_way_through_http(family: type[MinuetError], server: Recorded, api: Api) -> None:
    violation = errors.Violation("name", "is wrong", "X", ("a", "b"))
    sent = server_side.problem_of(family("it is so", code="Special", hint="do this", violations=[violation]))
    body = sent.model_dump_json(by_alias=True).encode()
    server.on(ME, Answer(sent.status, (body,), server_side.MEDIA_TYPE))
    with pytest.raises(family) as caught:
        api.get("/me")
    error = caught.value
    assert type(error) is family
    assert (error.message, error.code, error.hint, error.violations) == ("it is so", "Special", "do this", (violation,))


@pytest.mark.parametrize(
    ("status", "family"),
    [
        (400, errors.Invalid),
        (401, errors.Unauthenticated),
        (403, errors.Forbidden),
        (404, errors.NotFound),
        (409, errors.Conflict),
        (412, errors.Conflict),
        (413, errors.Invalid),
        (429, errors.Exhausted),
        (502, errors.Unavailable),
        (503, errors.Unavailable),
        (302, errors.Unavailable),
    ],
)
def test_a_status_without_a_problem_document_still_has_a_family(
    status: int, family: type[MinuetError], server: Recorded, api: Api
) -> None:
    server.on(ME, Answer(status, (b"<html>a proxy</html>",), "text/html"))
    with pytest.raises(family):
        api.get("/me")


@pytest.mark.parametrize("body", [b"<html>", b"[1, 2]", b'"text"', b"\xff\xfe"])
def test_an_answer_that_no_minuet_gives_is_unavailable(body: bytes, server: Recorded, api: Api) -> None:
    server.on(ME, Answer(200, (body,)))
    with pytest.raises(errors.Unavailable) as caught:
        api.get("/me")
    assert caught.value.code == "UnexpectedAnswer"


def test_nobody_there_is_unavailable_with_a_hint() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nowhere = Api(Context(f"http://127.0.0.1:{unused.getsockname()[1]}", "t"))
        with pytest.raises(errors.Unavailable) as caught:
            nowhere.get("/me")
    assert "minuet up" in (caught.value.hint or "")


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "gr\u00fcn", "\x1b[31m"])
def test_a_token_that_cannot_be_one_is_not_sent(token: str) -> None:
    with pytest.raises(errors.Unauthenticated):
        Api(Context("http://127.0.0.1:1", token))


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_name_cannot_mean_another_place(name: str) -> None:
    with pytest.raises(errors.Invalid):
        path("projects", name)


def test_a_name_is_quoted() -> None:
    assert path("projects", "a/b?c#d") == "/projects/a%2Fb%3Fc%23d"


def test_a_create_whose_answer_was_lost_is_asked_for_again_under_the_same_key(server: Recorded, api: Api) -> None:
    lost = Answer(201, (), headers=(("Content-Length", "100"),))
    server.on("POST /api/v1/organizations/default/projects", lost, document({"name": "shop"}, 201))
    assert api.post(api.organization("projects"), {"name": "shop"}) == {"name": "shop"}
    keys = [asked.headers["idempotency-key"] for asked in server.asked]
    assert len(keys) == 2
    assert len(set(keys)) == 1


def test_two_creates_have_two_keys(server: Recorded, api: Api) -> None:
    server.on("POST /api/v1/x", document({}))
    api.post("/x")
    api.post("/x")
    assert len({asked.headers["idempotency-key"] for asked in server.asked}) == 2


def test_a_list_is_read_page_after_page(server: Recorded, api: Api) -> None:
    server.on("GET /api/v1/x", document({"items": [{"n": 1}], "next": "c1"}), document({"items": [{"n": 2}]}))
    assert [item["n"] for item in api.pages("/x")] == [1, 2]
    assert server.asked[1].params["cursor"] == "c1"


def test_a_broken_stream_goes_on_after_the_last_event(server: Recorded, api: Api) -> None:
    server.on(
        "GET /api/v1/s", stream(event("a", {"n": 1}, "7"), cut=True), stream(event("a", {"n": 2}), event("end", {}))
    )
    assert [data.get("n") for _, data in api.events("/s")] == [1, 2, None]
    assert server.asked[1].headers["last-event-id"] == "7"


def test_an_error_inside_a_stream_is_raised(server: Recorded, api: Api) -> None:
    told = {"family": "NotFound", "code": "Gone", "detail": "it is gone", "status": 404}
    server.on("GET /api/v1/s", stream(event("a", {}), event("error", told)))
    with pytest.raises(errors.NotFound, match="it is gone"):
        list(api.events("/s"))


def test_a_refused_stream_is_an_error_at_once(server: Recorded, api: Api) -> None:
    server.on("GET /api/v1/s", problem(503, "Unavailable", "PlaneUnreachable", "the link is down"))
    with pytest.raises(errors.Unavailable, match="the link is down"):
        list(api.events("/s"))
    assert len(server.asked) == 1


@pytest.mark.parametrize("heartbeats", [(), (b": heartbeat\n\n",)])
def test_a_silent_stream_ends_at_its_deadline(server: Recorded, api: Api, heartbeats: tuple[bytes, ...]) -> None:
    server.on("GET /api/v1/s", stream(event("a", {"n": 1}), *heartbeats, hold=True))
    began = time.monotonic()
    assert [data for _, data in api.events("/s", deadline=began + 1.0)] == [{"n": 1}]
    assert 0.9 < time.monotonic() - began < 3


def line(number: int, moment: int, instance: str = "i") -> bytes:
    return event("line", {"time": f"2026-01-01T00:00:{moment:02}.000Z", "instance": instance, "message": f"m{number}"})


def test_no_line_of_a_log_is_shown_twice_or_lost_when_the_connection_breaks(server: Recorded, api: Api) -> None:
    server.on(
        "GET /api/v1/logs",
        stream(line(1, 1), line(2, 2), line(2, 2), line(3, 2), cut=True),
        stream(line(1, 1), line(2, 2), line(2, 2), line(3, 2), line(3, 2), line(4, 3)),
        stream(line(4, 3), line(5, 4), event("end", {})),
    )
    shown = [item["message"] for item in logs.lines(api, "/logs", follow=True, tail=10)]
    assert shown == ["m1", "m2", "m2", "m3", "m3", "m4", "m5"]
    assert server.asked[1].params["since"] == "2026-01-01T00:00:02.000Z"
    assert server.asked[1].params["follow"] == "true"


def test_the_pinned_certificate_is_believed_whoever_signed_it(tmp_path: Path) -> None:
    made = certificates.self_signed(tmp_path)
    spelled = ":".join(made.fingerprint.upper()[i : i + 2] for i in range(0, 64, 2))
    with recorded.serving(made.server_side) as server:
        server.on(ME, document({"organization": "default"}))
        assert Api(Context(server.url, "t", fingerprint=spelled)).get("/me")["organization"] == "default"


def test_another_certificate_than_the_pinned_one_gets_no_token(tmp_path: Path) -> None:
    made, other = certificates.self_signed(tmp_path), certificates.self_signed(tmp_path, "other")
    with recorded.serving(made.server_side) as server:
        server.on(ME, document({}))
        with pytest.raises(errors.Forbidden) as caught:
            Api(Context(server.url, "t", fingerprint=other.fingerprint)).get("/me")
        assert caught.value.code == "WrongCertificate"
        assert made.fingerprint in (caught.value.hint or "")
        assert server.asked == []


def test_an_unknown_authority_is_refused_and_a_named_one_believed(tmp_path: Path) -> None:
    made = certificates.self_signed(tmp_path)
    with recorded.serving(made.server_side) as server:
        server.on(ME, document({}))
        with pytest.raises(errors.Forbidden) as caught:
            Api(Context(server.url, "t")).get("/me")
        assert caught.value.code == "UntrustedCertificate"
        assert server.asked == []
        assert Api(Context(server.url, "t", ca_file=str(made.file))).get("/me") == {}


@pytest.mark.parametrize("fingerprint", ["", "abc", "g" * 64, "0" * 63])
def test_a_fingerprint_that_is_none_is_refused(fingerprint: str) -> None:
    from minuet.client.trust import check_fingerprint

    with pytest.raises(errors.Invalid):
        check_fingerprint(fingerprint)


def test_a_pin_on_an_open_connection_is_refused() -> None:
    with pytest.raises(errors.Invalid, match="https"):
        Api(Context("http://127.0.0.1:1", "t", fingerprint="0" * 64))


def test_what_was_read_comes_with_its_tag_and_a_change_demands_it(server: Recorded, api: Api) -> None:
    server.on(ME, Answer(200, (b'{"a": 1}',), headers=(("ETag", '"one"'),)))
    server.on("PATCH /api/v1/me", document({}))
    server.on("POST /api/v1/me", document({}))
    found, etag = api.tagged("/me")
    assert (found, etag) == ({"a": 1}, '"one"')
    api.patch("/me", {}, etag=etag)
    api.post("/me", {}, etag=etag)
    assert [asked.headers.get("if-match") for asked in server.asked] == [None, '"one"', '"one"']


def test_a_caller_with_little_patience_asks_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hurried = Api(Context(f"http://127.0.0.1:{silent.getsockname()[1]}", "token-1"), patience=0.2)
        with pytest.raises(errors.Unavailable):
            hurried.get("/me")
        hurried.close()
        silent.setblocking(False)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()
