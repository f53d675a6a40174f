"""The reader of server-sent events takes whatever arrives, however it is cut."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minuet.client import events
from minuet.client.events import NotAStream, ServerEvent, parse

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
EVENTS = st.lists(st.tuples(st.sampled_from(["line", "end", "build"]), st.dictionaries(TEXTS, TEXTS, max_size=3)))


def read(*chunks: bytes) -> list[ServerEvent]:
    return [event for event in parse(chunks) if event is not None]


@given(EVENTS, st.sampled_from([b"\n", b"\r\n"]), st.data())
def test_what_was_sent_is_read_wherever_the_network_cuts_it(
    sent: list[tuple[str, dict[str, str]]], end: bytes, data: st.DataObject
) -> None:
    raw = b"".join(
        b"event: %s%sdata: %s%s%s" % (name.encode(), end, json.dumps(body, ensure_ascii=False).encode(), end, end)
        for name, body in sent
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    chunks = [raw[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    assert [(event.name, event.data) for event in read(*chunks)] == sent


def test_separators_of_other_alphabets_do_not_end_a_line() -> None:
    text = {"message": "one\u2028two\x85three\x0bfour"}
    (event,) = read(b"data: " + json.dumps(text, ensure_ascii=False).encode() + b"\n\n")
    assert event.data == text


def test_comments_are_silent_and_every_chunk_lets_the_caller_look_at_the_time() -> None:
    assert list(parse([b": open\n\n", b": heartbeat\n\n"])) == [None, None]


def test_an_id_stays_until_there_is_another() -> None:
    first, second = read(b"id: 7\ndata: {}\n\ndata: {}\n\n")
    assert (first.id, second.id) == ("7", "7")


def test_data_over_several_lines_is_one_event() -> None:
    (event,) = read(b'data: {"a":\ndata: 1}\n\n')
    assert event.data == {"a": 1}


def test_half_an_event_at_the_end_is_none() -> None:
    assert read(b"event: line\ndata: {}\n") == []


@pytest.mark.parametrize("raw", [b"data: <html>\n\n", b"data: [1]\n\n", b"data: \xff\n\n"])
def test_what_is_not_a_json_object_is_refused(raw: bytes) -> None:
    with pytest.raises(NotAStream):
        read(raw)


@pytest.mark.parametrize("chunk", [b"x" * 1000, b"data: " + b"x" * 900 + b"\n"])
def test_an_endless_event_is_refused(chunk: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_EVENT_BYTES", 4000)
    with pytest.raises(NotAStream, match="longer"):
        read(*[chunk] * 10)
