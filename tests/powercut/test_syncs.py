"""How many syncs a run costs: counted, never timed."""

from __future__ import annotations

from pathlib import Path

import syncs

COMMANDS, CALLS, BATCH = 6, 20, 10_000


def test_a_run_costs_one_sync_and_a_batch_of_ten_thousand_no_more_than_ten(tmp_path: Path, library: Path) -> None:
    """End to end, a worker being alive: accepted, claimed, settled, and the log kept short."""
    counted = syncs.counted(tmp_path, library, commands=COMMANDS, calls=CALLS, batch=BATCH)
    assert counted["commands"] == {"log": COMMANDS}
    # A worker's connections sync the folder once in their lives, and the keeper may clean up at any time.
    assert counted["calls"].pop("log") - CALLS <= 2 * counted["calls"].pop("cleanings", 0)
    batch = counted["batch"]
    cleanings = batch.pop("cleanings", 0)
    # What takes this machine longer than ten seconds sees the keeper more than once.
    assert batch.total() - 3 * max(0, cleanings - 1) <= 10, (batch, cleanings)
