"""What `check` learns of Python targets, whatever their modules do when they are imported."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from hueyctl.process import targets
from hueyctl.process.targets import TargetParameter, TargetQuery, TargetReport, check_targets

MODULE = """
print("noise on stdout")
def f(a, b=1, *rest, c, **more): pass
def only(a, /): pass
async def g(): pass
class Tool:
    @staticmethod
    def use(x): pass
value = 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "fine.py").write_text(MODULE)
    (tmp_path / "crashing.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    (tmp_path / "leaving.py").write_text("import os; os._exit(3)")
    (tmp_path / "exiting.py").write_text("raise SystemExit(3)")
    (tmp_path / "hanging.py").write_text("import time; time.sleep(300)")
    return tmp_path


def query(folder: Path, target: str, *, interpreter: str = sys.executable, dir: str | None = None) -> TargetQuery:
    env = dict(os.environ)
    return TargetQuery(
        target=target, interpreter=interpreter, pythonpath=(str(folder),), dir=dir or str(folder), env=env
    )


def test_a_signature_is_told_parameter_by_parameter(folder: Path) -> None:
    f, only, g, tool = check_targets(
        [query(folder, target) for target in ("fine:f", "fine:only", "fine:g", "fine:Tool.use")]
    )
    assert f.error is None
    assert f.parameters == (
        TargetParameter(name="a", kind="either", has_default=False),
        TargetParameter(name="b", kind="either", has_default=True),
        TargetParameter(name="rest", kind="var-positional", has_default=False),
        TargetParameter(name="c", kind="keyword", has_default=False),
        TargetParameter(name="more", kind="var-keyword", has_default=False),
    )
    assert (f.takes_any, f.is_coroutine) == (True, False)
    assert only.parameters == (TargetParameter(name="a", kind="positional", has_default=False),)
    assert (g.takes_any, g.is_coroutine, g.parameters) == (False, True, ())
    assert tool.parameters == (TargetParameter(name="x", kind="either", has_default=False),)


def test_what_cannot_be_imported_or_called_is_said_in_one_line(folder: Path) -> None:
    names = ("absent:f", "fine:absent", "fine:value", "exiting:f")
    assert [report.error for report in check_targets([query(folder, name) for name in names])] == [
        "cannot import absent:f: ModuleNotFoundError: No module named 'absent'",
        "cannot import fine:absent: AttributeError: module 'fine' has no attribute 'absent'",
        "cannot import fine:value: TypeError: fine:value is not callable",
        "cannot import exiting:f: SystemExit: 3",
    ]


def test_one_that_ends_its_interpreter_is_blamed_alone(folder: Path) -> None:
    names = ("fine:g", "crashing:f", "fine:g", "leaving:f", "fine:g")
    assert [report.error for report in check_targets([query(folder, name) for name in names])] == [
        None,
        "importing it ends the interpreter: killed by SIGSEGV",
        None,
        "importing it ends the interpreter: exited with 3",
        None,
    ]


def test_one_that_hangs_is_given_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "CHECK_TIMEOUT_S", 1.0)
    assert check_targets([query(folder, "hanging:f")]) == [
        TargetReport(target="hanging:f", error="not imported within 1 s")
    ]


def test_an_interpreter_or_a_folder_that_is_not_there(folder: Path) -> None:
    reports = check_targets(
        [query(folder, "fine:f", interpreter="/no/python"), query(folder, "fine:f", dir="/no/folder")]
    )
    assert [report.error for report in reports] == [
        "its child can't be started: /no/python: No such file or directory",
        "its child can't be started: /no/folder: No such file or directory",
    ]


def test_nothing_to_look_at() -> None:
    assert check_targets([]) == []
