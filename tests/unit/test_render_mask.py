"""The values of secret parameters are in nothing that is shown."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hueyctl.app.public import public, public_run
from hueyctl.model.mask import Mask
from hueyctl.model.run import Message, Run, RunState

secrets = st.text(alphabet="ab*-", min_size=4, max_size=8)


@given(
    st.lists(secrets, min_size=1, max_size=3), st.binary().map(lambda b: bytes(b"ab*-"[x % 4] for x in b)), st.data()
)
def test_a_secret_is_found_however_the_output_is_cut(words: list[str], data: bytes, draw: st.DataObject) -> None:
    mask = Mask(words)
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=8)))
    stream, shown, start = mask.stream(), b"", 0
    for cut in cuts:
        shown += stream.feed(data[start:cut])
        start = cut
    shown += stream.feed(data[start:]) + stream.end()
    assert shown == mask.whole(data) == mask.text(data.decode()).encode()


@given(secrets, st.integers(1, 7), st.text(alphabet="xy\n"))
def test_nothing_of_a_secret_is_left_where_its_beginning_was_cut_off(word: str, cut: int, rest: str) -> None:
    assume(cut < len(word))
    assert Mask([word, "longer-" + word]).end((word[cut:] + rest).encode()) == rest.encode()


@given(st.lists(st.text(min_size=4), min_size=1), st.text(), st.text())
def test_no_secret_is_left_in_a_text(words: list[str], before: str, after: str) -> None:
    assume(not any(set(word) & set("*") for word in words))
    shown = Mask(words).text(before + words[0] + after)
    # What was taken out may bring others together only across stars.
    assert not any(word in piece for piece in shown.split("***") for word in words)


def test_output_without_a_secrets_beginning_is_shown_at_once() -> None:
    stream = Mask(["hunter2"]).stream()
    assert stream.feed(b"progress 10%") == b"progress 10%"
    assert stream.feed(b"it is hun") == b"it is "
    assert stream.feed(b"ting season") == b"hunting season"


def test_short_values_are_left_alone_in_texts() -> None:
    assert Mask(["no", True, 7]).text("no 7 True") == "no 7 True"
    assert not Mask(["no", True, 7])


def test_a_secret_that_begins_with_another_is_replaced_whole() -> None:
    assert Mask(["abcd", "abcdef"]).text("abcdef abcd") == "*** ***"


@pytest.mark.parametrize("form", [json.dumps, repr])
def test_a_secret_is_found_in_the_way_that_json_and_python_write_it(form: object) -> None:
    secret = 'new\nline "quoted" \\ Zoë'
    shown = Mask([secret]).text(f"failed with {form(secret)}")
    assert "quoted" not in shown


def test_json_values_are_masked_in_their_depth() -> None:
    value = {"hunter2": ["x hunter2", {"n": 123456, "ok": True}], "n": 1}
    assert Mask(["hunter2", 123456]).value(value) == {"***": ["x ***", {"n": "***", "ok": True}], "n": 1}


def test_what_is_in_an_object_in_a_secret_array_is_secret() -> None:
    assert Mask([[{"key": "hunter22", "more": [{"deep": 98765}]}]]).text("hunter22 98765") == "*** ***"


def test_elements_of_a_secret_array_are_secret() -> None:
    assert Mask([["alpha", ["bravo"]]]).text("alpha bravo") == "*** ***"


AT = datetime(2026, 3, 29, 1, 2, 3, 4, tzinfo=UTC)

RUN = Run(
    n=1,
    id="7c1e2f6a-90d4-4c5b-8f3e-2a1b0c9d8e7f",
    job="fetch",
    state=RunState.FAILED,
    queue="default",
    priority=0,
    message=Message(params={"token": "hunter2", "pin": "12", "url": "https://x/?t=hunter2"}, secrets=("token", "pin")),
    enqueued_at=AT,
    due_at=AT,
    error="Error: hunter2 is wrong",
    reason="Error: hunter2 is wrong",
    result=b"got hunter2",
    result_error="hunter2 is too large",
)


def test_a_public_run_shows_no_secret_anywhere() -> None:
    shown = public_run(RUN, None)
    assert "hunter2" not in json.dumps({**shown, "params": {}})
    assert shown["params"]["token"] == shown["params"]["pin"] == "***"
    assert shown["result"] == "got ***"


def test_the_public_form_of_a_run_is_this() -> None:
    """Schema 1: keys are only ever added."""
    assert list(public_run(RUN, None)) == (
        "id job state priority queue attempt retries_left losses params result result_error exit_code error reason "
        "trigger schedule scheduled_at pipeline worker enqueued_at due_at started_at finished_at"
    ).split(" ")
    assert public_run(RUN, None)["enqueued_at"] == "2026-03-29T01:02:03.000004Z"
    assert public_run(RUN, None)["started_at"] is None


def test_a_public_run_knows_whether_it_ended() -> None:
    assert public(RUN, None, Mask.of(RUN)).ended
    assert not public(RUN, None, Mask.of(RUN)).succeeded
