"""What follows from the end of a run, in the transaction that ends it.

Every way to end comes through `ended`: a settlement, a rescue, the expiry of what never started, a revoke.
"""

from __future__ import annotations

from collections.abc import Iterable

from hueyctl.model.run import Run
from hueyctl.storage import gates, pipelines
from hueyctl.storage.database import Database
from hueyctl.storage.log import Log


def ended(database: Database, run: Run, log: Log) -> None:
    """Let go on what waited for this run, which is as it ended (its state, reason, result…), and hooks follow."""
    _all_ended(database, (run, *pipelines.go_on(database, run, log)), log)


def begin(database: Database, pipeline: str, log: Log) -> None:
    """Let start the steps of this pipeline that wait for nothing any more."""
    _all_ended(database, pipelines.begin(database, pipeline, log), log)


def _all_ended(database: Database, runs: Iterable[Run], log: Log) -> None:
    for run in runs:
        pipeline = gates.open_next(database, run.schedule, log)
        if pipeline is not None:
            begin(database, pipeline, log)
        log.hook(run)
