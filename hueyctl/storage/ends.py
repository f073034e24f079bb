"""What follows from the end of a run, in the transaction that ends it.

Every way to end comes through `ended`: a settlement, a rescue, the expiry of what never started, a revoke.
"""

from __future__ import annotations

from hueyctl.model.run import Run
from hueyctl.storage import gates
from hueyctl.storage.database import Database
from hueyctl.storage.log import Log


def ended(database: Database, run: Run, log: Log) -> None:
    """Let go on what waited for this run, which is as it ended (its state, reason, result…)."""
    gates.open_next(database, run.schedule, log)
