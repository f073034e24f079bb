"""What a run of a pipeline is handed: the results of those that it waited for, as bytes or as a value.

A Python job's result is JSON, and so is that of a command with `result = "json"`; another command's is text. What one
gives is handed on as it is, what several give as a JSON list in the order of the steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from hueyctl.model.definition import Job


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """What one step gives to those that wait for it. Without a result there is nothing to give, or (`result_error`) it
    can't be given."""

    position: int
    job: str
    result: bytes | None = None
    result_error: str | None = None


def as_stdin(inputs: Sequence[Input], jobs: Mapping[str, Job]) -> bytes:
    """What a command finds on its standard input: `as_bytes`, text with its last newline, which the result is kept
    without. A shell's `read` fails where that is missing, and `while read` leaves the last line out."""
    given = as_bytes(inputs, jobs)
    return given + b"\n" if given and is_text(given) else given


def as_bytes(inputs: Sequence[Input], jobs: Mapping[str, Job]) -> bytes:
    """The very result of one (nothing, where it has none); of several `as_json`."""
    if len(inputs) == 1:
        return inputs[0].result or b""
    return as_json(inputs, jobs)


def as_json(inputs: Sequence[Input], jobs: Mapping[str, Job]) -> bytes:
    """The value of one (null, where it has no result), or a list. What is JSON is not written anew."""
    values = [_json(each, jobs) for each in inputs]
    return values[0] if len(values) == 1 else b"[" + b",".join(values) + b"]"


def as_value(inputs: Sequence[Input], jobs: Mapping[str, Job]) -> Any:
    """What a Python function gets as `input`."""
    import json  # the standard library's, which keeps long integers; only workers need it

    return json.loads(as_json(inputs, jobs))


def is_text(data: bytes) -> bool:
    """Is it UTF-8? What isn't has no lines."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _json(given: Input, jobs: Mapping[str, Job]) -> bytes:
    if given.result is None:
        return b"null"
    job = jobs.get(given.job)
    if job is not None and (job.kind == "python" or job.result == "json"):
        import json

        try:
            json.loads(given.result)
            return given.result
        except ValueError:
            pass  # of an older definition, whose results were text
    return msgspec.json.encode(given.result.decode(errors="replace"))
