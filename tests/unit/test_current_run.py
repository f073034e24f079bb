"""`current_run()` outside of children: in a worker's thread, and where there is no run."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from hueyctl.current import CurrentRun, current_run, running

RUN = CurrentRun(id="an-id", job="fetch", attempt=1, queue="default", file="/x/jobs.toml")


def test_outside_of_a_job_it_says_so() -> None:
    with pytest.raises(RuntimeError, match="outside of a hueyctl job"):
        current_run()


def test_a_thread_has_its_own_run_and_gives_it_back() -> None:
    seen: list[str] = []
    with running(lambda: RUN):
        assert current_run() is RUN

        def look() -> None:
            with pytest.raises(RuntimeError):
                current_run()
            seen.append("looked")

        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    assert seen == ["looked"]
    with pytest.raises(RuntimeError):
        current_run()


def test_progress_is_one_line_replaced_whole_and_gone_with_its_run(tmp_path: Path) -> None:
    path = tmp_path / "progress" / "an-id.1"
    run = CurrentRun(id="an-id", job="fetch", attempt=1, queue="default", file="", progress_path=str(path))
    with running(lambda: run):
        current_run().progress(1, 3)
        assert path.read_text() == "1/3\n"
        current_run().progress(1.5, 3, "half\nway ")
        assert path.read_text() == "1.5/3 half way\n"
        current_run().progress(12_345_678, 123_456_789)
        assert path.read_text() == "12345678/123456789\n"
        assert [each.name for each in path.parent.iterdir()] == ["an-id.1"]
    assert not path.exists()


def test_progress_that_cannot_be_written_is_let_go() -> None:
    CurrentRun(id="", job="", attempt=1, queue="", file="", progress_path="/proc/no/such").progress(1, 2)
    CurrentRun(id="", job="", attempt=1, queue="", file="").progress(1, 2)
