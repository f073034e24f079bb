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


def as_bytes(inputs: Sequence[Input], jobs: Mapping[str, Job]) -> bytes:
    """What a command finds on its standard input: the very result of one (nothing, where it has none), or a list."""
    if len(inputs) == 1:
        return inputs[0].result or b""
    return msgspec.json.encode(as_value(inputs, jobs))


def as_value(inputs: Sequence[Input], jobs: Mapping[str, Job]) -> Any:
    """What a Python function gets as `input`: the value of one (None, where it has none), or a list."""
    values = [_value(each, jobs) for each in inputs]
    return values[0] if len(values) == 1 else values


def _value(given: Input, jobs: Mapping[str, Job]) -> Any:
    if given.result is None:
        return None
    job = jobs.get(given.job)
    if job is not None and (job.kind == "python" or job.result == "json"):
        try:
            return msgspec.json.decode(given.result)
        except msgspec.DecodeError:
            pass  # of an older definition, whose results were text
    return given.result.decode(errors="replace")
