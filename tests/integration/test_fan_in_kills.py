"""A kill right before any statement of the transactions in which a pipeline's branches meet, and in which it ends.

Real workers are killed around their transactions in tests/acceptance/test_pipeline_runs.py; here within them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import fan_in
import pytest

from hueyctl.model.run import RunState
from hueyctl.storage.sqlite import SqliteStore
from hueyctl.storage.store import EventFilter, RunFilter

ROOT = Path(__file__).parents[2]


def seen(store: SqliteStore) -> tuple[Any, ...]:
    """All that there is of runs, counts and history, but for what is random."""
    runs = [(run.n, run.job, run.state, run.attempt, run.gate) for run in store.runs(RunFilter(), limit=None)]
    lines = sorted((line.job, line.state, line.count) for line in store.lines())
    events = [(event.type, event.job, event.state) for event in store.events(EventFilter(), after=0, limit=1000)]
    holder = store.lock_holder("disk")
    return runs, lines, events, holder is not None


@pytest.mark.parametrize("transaction", fan_in.TRANSACTIONS)
def test_a_kill_before_any_statement_leaves_all_of_it_or_nothing_and_each_step_succeeds_once(
    transaction: str, tmp_path: Path
) -> None:
    script = [sys.executable, fan_in.__file__, str(tmp_path), transaction]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(script, env=env, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    statements = int(done.stdout)
    assert statements > 15
    with closing(fan_in.opened(tmp_path / "0")) as store:
        before = seen(store)
    with closing(fan_in.opened(tmp_path / str(statements))) as store:
        after = seen(store)
    assert after != before
    found = Counter[bool]()
    for statement in range(1, statements + 1):
        with closing(fan_in.opened(tmp_path / str(statement))) as store:
            left = seen(store)
            assert left in (before, after), f"killed before statement {statement}"
            found[left == after] += 1
            fan_in.finish(store)
            runs = store.runs(RunFilter(), limit=None)
            assert {run.state for run in runs} == {RunState.SUCCEEDED}
            each = {"etl": 2, "left": 2, "right": 2, "join": 2, "other": 1, "alert": 2}  # one alert for each join
            assert Counter(run.job for run in runs) == each
            ends = Counter(event.run for event in store.events(EventFilter(types=("complete",)), after=0, limit=1000))
            assert set(ends.values()) == {1}
            assert all(line.count == 0 for line in store.lines())
    assert found[False] > 15  # until its commit there is nothing of it
    assert found[True]
