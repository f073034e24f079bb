"""`hueyctl prune`: what is past its retention goes, with its output; nothing else does."""

from __future__ import annotations

import os
import threading
import time
import uuid
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from shell import Shell, eventually

from hueyctl.model.definition import Retention
from hueyctl.model.run import Message, NewRun
from hueyctl.storage.sqlite import open_store
from hueyctl.storage.tidying import Tidied, prune_steps

JOBS = """
    [retention]
    succeeded = "1h"

    [jobs.fetch]
    command = ["true"]
    """
DAY_AND_A_BIT = 90_000


@pytest.fixture(autouse=True)
def _jobs(shell: Shell) -> None:
    shell.write(JOBS)


def output_of(shell: Shell, run: str, *, age_s: float = 0) -> Path:
    """A run's output folder, last changed so long ago."""
    shell.print_output(run, 1, stdout=b"text")
    folder = shell.place.output / run
    then = time.time() - age_s
    os.utime(folder, (then, then))
    return folder


def pruned(shell: Shell, *words: str) -> dict[str, int]:
    found = shell.type("prune", "--json", *words).json["pruned"]
    return {name: found[name] for name in ("runs", "events", "folders")}


def test_what_has_ended_goes_with_its_output_when_its_retention_has_passed(shell: Shell) -> None:
    succeeded, failed, queued = (shell.enqueue("fetch") for _ in range(3))
    shell.finish("fetch")
    shell.finish("fetch", code=1)
    outputs = [output_of(shell, run) for run in (succeeded, failed, queued)]
    assert shell.type("prune").out == "deleted 0 runs, 0 events\n"
    assert pruned(shell, "--succeeded", "0s") == {"runs": 1, "events": 0, "folders": 0}
    assert [folder.exists() for folder in outputs] == [False, True, True]
    assert {run["id"] for run in shell.type("runs", "--json").json["runs"]} == {failed, queued}
    assert pruned(shell, "--failed", "0s") == {"runs": 1, "events": 0, "folders": 0}
    assert [folder.exists() for folder in outputs] == [False, False, True]
    told = len(shell.type("events", "--json").lines)
    assert told > 6
    # The newest event stays.
    assert pruned(shell, "--events", "0s") == {"runs": 0, "events": told - 1, "folders": 0}
    assert [run["id"] for run in shell.type("runs", "--json").json["runs"]] == [queued]


def test_retention_is_that_of_the_file_unless_said_otherwise(shell: Shell) -> None:
    shell.enqueue("fetch")
    found = shell.type("prune", "--json", "--failed", "2h").json
    assert found["pruned"]["retention"] == {"succeeded": 3600.0, "failed": 7200.0, "events": 2592000.0}


def test_a_dry_run_says_what_would_go_and_deletes_nothing(shell: Shell) -> None:
    runs = [shell.enqueue("fetch") for _ in range(3)]
    for _ in runs:
        shell.finish("fetch")
    outputs = [output_of(shell, run) for run in runs]
    orphan = output_of(shell, str(uuid.uuid4()), age_s=DAY_AND_A_BIT)
    words = ("--succeeded", "0s", "--events", "0s")
    expected = {"runs": 3, "events": len(shell.type("events", "--json").lines) - 1, "folders": 1}
    assert pruned(shell, "--dry-run", *words) == expected
    assert (
        "would delete 3 runs, 9 events, 1 output folder without a run" in shell.type("prune", "--dry-run", *words).out
    )
    assert all(folder.exists() for folder in (*outputs, orphan))
    assert pruned(shell, *words) == expected
    assert not any(folder.exists() for folder in (*outputs, orphan))


def test_output_of_no_run_goes_when_it_is_a_day_old(shell: Shell) -> None:
    run = shell.enqueue("fetch")
    kept = [
        output_of(shell, run, age_s=DAY_AND_A_BIT),
        output_of(shell, str(uuid.uuid4()), age_s=DAY_AND_A_BIT - 10_000),
        output_of(shell, "my-notes", age_s=DAY_AND_A_BIT),
    ]
    orphans = [output_of(shell, str(uuid.uuid4()), age_s=DAY_AND_A_BIT) for _ in range(3)]
    link = shell.place.output / str(uuid.uuid4())
    link.symlink_to(kept[0], target_is_directory=True)
    assert pruned(shell) == {"runs": 0, "events": 0, "folders": 3}
    assert all(folder.exists() for folder in (*kept, link))
    assert not any(folder.exists() for folder in orphans)


def test_a_wrong_duration_and_a_missing_store_are_told(shell: Shell) -> None:
    assert "--succeeded: expected a duration" in shell.type("prune", "--succeeded", "soon", code=2).err
    assert "there is no store yet" in shell.type("prune", code=4).err


def test_others_get_the_write_lock_between_the_steps(shell: Shell) -> None:
    """Somebody who writes while much is pruned waits for a step or two and not for all of them."""
    now = datetime.now(UTC)
    runs = [NewRun(id=str(uuid.uuid4()), job="fetch", message=Message()) for _ in range(8_000)]
    with shell.store() as store:
        store.accept(runs, by="b", now=now)
        store.revoke([run.id for run in runs], kill=False, by="b", now=now)
    at_once = Retention(succeeded=timedelta(0), failed=timedelta(0), events=timedelta(0))
    steps: list[Tidied] = []

    def prune() -> None:
        with closing(open_store(shell.place.path)) as store:
            for step in prune_steps(store, shell.place, at_once, now=now + timedelta(seconds=1)):
                steps.append(step)  # noqa: PERF402 (one by one, as they are made)

    pruning = threading.Thread(target=prune)
    with closing(open_store(shell.place.path)) as other:
        pruning.start()
        try:
            written_after = []
            for _ in range(2):
                eventually(lambda: len(steps) > (written_after or [0])[-1])
                other.accept([NewRun(id=str(uuid.uuid4()), job="fetch", message=Message())], by="b", now=now)
                written_after.append(len(steps))
        finally:
            pruning.join()
    assert written_after[-1] < len(steps), f"written after steps {written_after} of {len(steps)}"


def test_what_a_lost_attempt_said_of_its_progress_goes_when_it_is_rescued(shell: Shell) -> None:
    shell.enqueue("fetch")
    (claim,) = shell.claim("fetch", worker="dead")
    progress = shell.place.progress(claim.run.id, claim.run.attempt)
    progress.parent.mkdir(exist_ok=True)
    progress.write_text("40/100")
    shell.spawn("worker", "start", "--burst")
    eventually(lambda: not progress.exists())


def test_a_worker_prunes_by_itself_and_looks_for_orphans(shell: Shell) -> None:
    shell.write(JOBS.replace('"1h"', '"0s"') + '\n[worker]\nlease = "1s"\n')
    run = shell.enqueue("fetch")
    orphan = output_of(shell, str(uuid.uuid4()), age_s=DAY_AND_A_BIT)
    shell.spawn("worker", "start")
    eventually(lambda: shell.type("runs", "--json").json["runs"] == [])
    eventually(lambda: not orphan.exists() and not (shell.place.output / run).exists())
