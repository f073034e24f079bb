"""Looks at the targets of Python jobs, each imported in a child and nowhere else, for `hueyctl check`."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from hueyctl.model.outcome import Exited, Signaled, describe

CHECK_TIMEOUT_S = 30.0
_CHILD = str(Path(__file__).with_name("child.py"))

ParameterKind = Literal["positional", "keyword", "either", "var-positional", "var-keyword"]


class TargetQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A callable, and everything that its child is made with. `env` is the whole environment."""

    target: str
    interpreter: str
    pythonpath: tuple[str, ...]
    dir: str
    env: dict[str, str]


class TargetParameter(msgspec.Struct, frozen=True, kw_only=True):
    """A parameter of its signature; `either`: by position or by keyword."""

    name: str
    kind: ParameterKind
    has_default: bool


class TargetReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. `error` (one line) says why it can't be imported or called; `parameters` is None where it has
    no signature to look at (some built-ins)."""

    target: str
    error: str | None = None
    parameters: tuple[TargetParameter, ...] | None = None
    is_coroutine: bool = False

    @property
    def takes_any(self) -> bool:
        """Does it take every keyword (`**kwargs`), as far as can be known?"""
        return self.parameters is None or any(each.kind == "var-keyword" for each in self.parameters)


def check_targets(targets: Sequence[TargetQuery]) -> list[TargetReport]:
    """A report for each of `targets`, in their order; one child per interpreter, path, folder and environment.

    Bounded by 30 s for each child; a target that crashes, hangs or ends its child gets a report that says so.
    """
    reports: dict[int, TargetReport] = {}
    groups: dict[tuple[object, ...], list[int]] = {}
    for at, query in enumerate(targets):
        made_with = (query.interpreter, query.pythonpath, query.dir, tuple(sorted(query.env.items())))
        groups.setdefault(made_with, []).append(at)
    for pending in groups.values():
        end = time.monotonic() + CHECK_TIMEOUT_S
        while pending:
            found, trouble = _look([targets[at] for at in pending], max(0.0, end - time.monotonic()))
            if len(found) < len(pending):
                # The one that was being imported is to blame; the others get a child of their own.
                found.append(TargetReport(target=targets[pending[len(found)]].target, error=trouble))
            reports.update(zip(pending, found, strict=False))
            pending = pending[len(found) :]
    return [reports[at] for at in range(len(targets))]


def _look(queries: list[TargetQuery], timeout_s: float) -> tuple[list[TargetReport], str]:
    """The reports that one child gave, in order, and what befell it at the next target."""
    first = queries[0]
    question = msgspec.json.encode({"pythonpath": first.pythonpath, "targets": [each.target for each in queries]})
    try:
        child = subprocess.Popen(
            [first.interpreter, _CHILD, "--check"],
            cwd=first.dir,
            env=first.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as exc:
        return [], f"its child can't be started: {exc.filename or first.interpreter}: {exc.strerror}"
    trouble = ""
    try:
        said, _ = child.communicate(question, timeout_s)
    except subprocess.TimeoutExpired:
        trouble = f"not imported within {CHECK_TIMEOUT_S:g} s"
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        said, _ = child.communicate()
    lines = said.splitlines(keepends=True)
    reports = [msgspec.json.decode(line, type=TargetReport) for line in lines if line.endswith(b"\n")]
    code = child.returncode
    how = describe(Signaled(-code)) if code < 0 else describe(Exited(code))
    return reports, trouble or f"importing it ends the interpreter: {how}"
