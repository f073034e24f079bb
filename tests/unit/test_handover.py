"""What is handed from step to step: as it is from one, as a JSON list from several, text told from JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hueyctl.model.definition import CommandBody, Job, PythonBody
from hueyctl.model.handover import Input, as_bytes, as_json, as_stdin, as_value

JOBS = {
    "text": Job(name="text", dir=Path("/"), body=CommandBody(argv=("true",))),
    "json": Job(name="json", dir=Path("/"), body=CommandBody(argv=("true",)), result="json"),
    "python": Job(name="python", dir=Path("/"), body=PythonBody(target="a:b")),
}


def given(job: str, result: bytes | None, position: int = 0) -> Input:
    return Input(position=position, job=job, result=result)


@pytest.mark.parametrize(
    ("job", "result", "stdin", "value"),
    [
        ("text", b"12", b"12\n", "12"),
        ("text", b"two\nlines", b"two\nlines\n", "two\nlines"),
        ("text", b"", b"", ""),
        ("text", b"\xff\x00", b"\xff\x00", "�\0"),
        ("text", None, b"", None),
        ("json", b"12", b"12\n", 12),
        ("json", b' {"a": [1.50, 1e3]}', b' {"a": [1.50, 1e3]}\n', {"a": [1.5, 1000.0]}),
        ("json", b"123456789012345678901234567890", b"123456789012345678901234567890\n", int("1234567890" * 3)),
        ("python", b'"text"', b'"text"\n', "text"),
        ("python", None, b"", None),
        ("undefined here", b"12", b"12\n", "12"),
        ("json", b"from when it was text", b"from when it was text\n", "from when it was text"),
    ],
)
def test_of_one_its_result_as_it_is(job: str, result: bytes | None, stdin: bytes, value: object) -> None:
    inputs = (given(job, result),)
    assert as_bytes(inputs, JOBS) == (result or b"")
    assert as_stdin(inputs, JOBS) == stdin
    assert as_value(inputs, JOBS) == value


def test_of_several_a_list_in_their_order_with_text_as_strings() -> None:
    inputs = (given("text", b"1", 2), given("python", b"1", 0), given("json", None, 1), given("text", b'"', 3))
    expected = ["1", 1, None, '"']
    assert as_value(inputs, JOBS) == expected
    assert json.loads(as_bytes(inputs, JOBS)) == expected
    assert as_stdin(inputs, JOBS) == as_json(inputs, JOBS) + b"\n"
