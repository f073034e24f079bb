"""A disk that is full, a store that is locked or can't be written: told, waited out, and nothing lost."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Project, WorkerProcess, eventually

JOBS = """
    [worker]
    lease = "1s"
    output_max = "64KiB"

    [jobs.gate]
    script = 'echo "$PARAM_N started" >> marks; until [ -e go ]; do sleep 0.02; done; echo "$PARAM_N ended" >> marks'
    params = { n = 1 }

    [jobs.mark]
    script = 'echo "$PARAM_N" >> marks'
    params = { n = 1 }
    """

LEASE_S = 1.0
LITTLE = 4096  # bytes, in which nothing of a store fits


class Disk:
    """What the store lies on, which can be full: a small tmpfs where we may mount one; elsewhere no process of the
    project may make a file longer."""

    def __init__(self, project: Project, folder: Path) -> None:
        self.project, self.folder = project, folder
        self.folder.mkdir(mode=0o700)
        self.mounted = os.getuid() == 0 and not subprocess.call(
            ["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs", str(self.folder)], stderr=subprocess.DEVNULL
        )
        self.command = project.command

    def fill(self) -> None:
        """Leave not a byte."""
        if self.mounted:
            with (self.folder / "filler").open("ab", buffering=0) as filler, contextlib.suppress(OSError):
                while True:
                    filler.write(bytes(512))
            return
        self._limit(LITTLE)
        limited = self.project.dir / "limited"
        limited.write_text(f'#!/bin/sh\nexec prlimit --fsize={LITTLE}: "{self.command}" "$@"\n')
        limited.chmod(0o700)
        self.project.command = limited

    def stay_full(self) -> None:
        """Leave not a byte to a worker either, which makes room by shortening the store's log."""
        log = self.project.store.with_name("queue.db-wal")

        def is_full() -> bool:
            self.fill()
            if self.mounted and (log.stat().st_size or os.statvfs(self.folder).f_bavail):
                return False
            return not _try_to_enqueue(self.project, 0)

        eventually(is_full)

    def free(self) -> None:
        """Give the space back."""
        if self.mounted:
            (self.folder / "filler").unlink()
            return
        self._limit(resource.RLIM_INFINITY)
        self.project.command = self.command

    def close(self) -> None:
        """Take it away."""
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.folder)], check=True)

    def _limit(self, size: int) -> None:
        for pid, line in self.project.processes().items():
            if "hueyctl" in line:  # the jobs have disks of their own
                hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


@pytest.fixture
def disk(project: Project) -> Iterator[Disk]:
    disk = Disk(project, project.store.parent)
    yield disk
    disk.close()


@pytest.fixture
def output_disk(project: Project) -> Iterator[Disk]:
    """One that only the output is on, and what steps of pipelines are handed."""
    if os.getuid():
        pytest.skip("only root may mount a disk for the output alone")
    project.store.parent.mkdir(mode=0o700)
    disk = Disk(project, project.store.parent / "output")
    yield disk
    disk.close()


def test_what_cannot_be_written_is_not_accepted_and_not_half(project: Project, disk: Disk) -> None:
    project.write(JOBS)
    kept = project.enqueue("mark")
    disk.fill()
    # Small ones may still find room in what the log has already; soon none does.
    accepted = [kept]
    for n in range(200):
        if not (run := _try_to_enqueue(project, n)):
            break
        accepted.append(run)
    refused = project.cli("enqueue", "mark", "--json", code=4)
    assert refused.out == ""
    assert refused.error["code"] == "store-full"
    batch = '{"job": "mark"}\n' * 2000
    assert project.cli("enqueue", "--batch", "-", code=4, stdin=batch).out == ""
    disk.free()
    assert sorted(run["id"] for run in project.runs()) == sorted(accepted)
    accepted.append(project.enqueue("mark"))
    assert len(project.cli("enqueue", "--batch", "-", stdin='{"job": "mark"}\n' * 20).out.split()) == 20
    runs = project.runs()
    assert len(runs) == len(accepted) + 20
    enqueued = [event["run"] for event in project.events("--type", "enqueued")]
    assert sorted(enqueued) == sorted(run["id"] for run in runs)


def _try_to_enqueue(project: Project, n: int) -> str | None:
    words = [str(project.command), "enqueue", "mark", f"n={n}"]
    done = subprocess.run(words, cwd=project.dir, env=project.env, capture_output=True, check=False)
    assert done.returncode in {0, 4}, done
    return done.stdout.decode().strip() or None


def test_a_worker_waits_for_space_with_what_it_has_finished(project: Project, disk: Disk) -> None:
    """It claims nothing meanwhile, and forgets nothing: each run is done once, without a loss."""
    project.write(JOBS)
    with project.worker("-c", "2") as worker:
        first = [project.enqueue("gate", f"n={n}") for n in (1, 2)]
        behind = [project.enqueue("mark", f"n={n}") for n in (3, 4)]
        eventually(lambda: sorted(project.lines("marks")) == ["1 started", "2 started"])
        disk.stay_full()
        full_since = time.monotonic()
        (project.dir / "go").touch()
        eventually(lambda: sorted(project.lines("marks"))[-1] == "2 started" and len(project.lines("marks")) == 4)
        # Longer than its lease: nobody is taken for dead meanwhile.
        eventually(lambda: time.monotonic() > full_since + 3 * LEASE_S)
        assert 1 <= worker.log.count("no heartbeat") <= 3, "it is said once, not at each try"
        assert {project.run(run)["state"] for run in first} == {"running"}
        assert {project.run(run)["state"] for run in behind} == {"queued"}
        assert worker.process.poll() is None
        disk.free()
        for run in (*first, *behind):
            found = project.reaches(run, "succeeded")
            assert (found["attempt"], found["losses"]) == (1, 0)
        assert project.events("--type", "stale") == []
        assert project.events("--type", "lost") == []
        eventually(lambda: not project.runs("--state", "queued", "--state", "running"))
        worker.signal(signal.SIGTERM)
        assert worker.ended() == 0
    marks = [mark for mark in project.lines("marks") if mark != "0"]
    assert sorted(marks) == ["1 ended", "1 started", "2 ended", "2 started", "3", "4"]


def misses_its_beats(worker: WorkerProcess) -> bool:
    return worker.log.count("no heartbeat") > worker.log.count("the store is there again")


def test_workers_that_cannot_beat_on_a_full_disk_do_not_take_each_other_for_dead(project: Project, disk: Disk) -> None:
    """None of them when there is space again, either: the time until then doesn't count."""
    project.write(JOBS)
    with project.worker("-c", "2") as one, project.worker("-c", "2") as other:
        runs = [project.enqueue("gate", f"n={n}") for n in range(4)]
        eventually(lambda: len(project.lines("marks")) == 4)
        for _ in range(2):
            disk.stay_full()
            eventually(lambda: all(map(misses_its_beats, (one, other))))
            full_since = time.monotonic()
            eventually(lambda full_since=full_since: time.monotonic() > full_since + 2 * LEASE_S)
            disk.free()
            eventually(lambda: not any(map(misses_its_beats, (one, other))))
        (project.dir / "go").touch()
        for run in runs:
            found = project.reaches(run, "succeeded")
            assert (found["attempt"], found["losses"]) == (1, 0)
        assert project.events("--type", "lost") == []


def test_a_disk_that_the_stores_own_log_fills_is_freed_by_the_worker(project: Project, disk: Disk) -> None:
    """Many versions of a few pages: what they come to has room in the file."""
    if not disk.mounted:
        pytest.skip("only a disk of a known size can be filled by a log")
    project.write(JOBS)
    first = project.enqueue("mark")
    with project.worker() as worker:
        project.reaches(first, "succeeded")
        with contextlib.closing(sqlite3.connect(project.store, isolation_level=None, timeout=20)) as writer:
            writer.execute("PRAGMA wal_autocheckpoint = 0")
            writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            # Less than is left of the disk before it is filled: until then the worker has no reason to do anything.
            for _ in range(150):
                writer.execute("UPDATE workers SET beat_at = beat_at + 1")
            assert project.store.with_name("queue.db-wal").stat().st_size > 100 * LITTLE
        disk.fill()
        run = eventually(lambda: _try_to_enqueue(project, 2), every=0.2)
        project.reaches(run, "succeeded")
        assert worker.process.poll() is None


def test_a_step_whose_input_finds_no_space_waits_for_it(project: Project, output_disk: Disk) -> None:
    """It is no fault of its job, which would have failed without retries."""
    project.write(
        """
        [jobs.say]
        command = ["echo", "said"]

        [jobs.hear]
        script = 'cat >> marks'

        [pipelines.both]
        steps = ["say", "hear"]
        """
    )
    project.cli("pause", "--job", "hear")
    run = project.enqueue("both")
    with project.worker() as worker:
        eventually(lambda: [each["state"] for each in project.runs("--job", "say")] == ["succeeded"])
        output_disk.fill()
        project.cli("resume", "--job", "hear")
        eventually(lambda: [each["state"] for each in project.runs("--job", "hear")] == ["running"])
        began = time.monotonic()
        eventually(lambda: time.monotonic() > began + 1.5)
        assert [each["state"] for each in project.runs("--job", "hear")] == ["running"], worker.log
        output_disk.free()
        project.reaches(run, "succeeded")
    assert project.lines("marks") == ["said"]
    assert [each["attempt"] for each in project.runs("--job", "hear")] == [1]


def test_a_step_that_waits_for_space_can_be_stopped_and_has_not_begun(project: Project, output_disk: Disk) -> None:
    """A revoke ends it at once; a worker that drains gives it back: on_worker_lost = "fail" is for what has begun."""
    project.write(
        """
        [worker]
        shutdown_timeout = "0.5s"

        [jobs.say]
        command = ["echo", "said"]

        [jobs.hear]
        script = 'cat >> marks'
        on_worker_lost = "fail"

        [pipelines.both]
        steps = ["say", "hear"]
        """
    )
    project.cli("pause", "--job", "hear")
    one, other = project.enqueue("both"), project.enqueue("both")
    with project.worker() as worker:
        eventually(lambda: [each["state"] for each in project.runs("--job", "say")] == ["succeeded"] * 2)
        output_disk.fill()
        project.cli("resume", "--job", "hear")
        eventually(lambda: [each["state"] for each in project.runs("--job", "hear")] == ["running"] * 2)
        began = time.monotonic()
        (first,) = [each["id"] for each in project.runs("--job", "hear") if each["pipeline"] == one]
        project.cli("revoke", "--kill", first)
        assert project.run(first)["state"] == "revoked"
        worker.signal(signal.SIGTERM)
        assert worker.ended() == 0
        assert time.monotonic() - began < 25, "not after the patience that is for the disk"
    (left,) = [each for each in project.runs("--job", "hear") if each["pipeline"] == other]
    assert (left["state"], left["losses"]) == ("queued", 0)
    output_disk.free()
    project.burst()
    project.reaches(other, "succeeded")
    assert project.lines("marks") == ["said"]


@pytest.mark.parametrize(("point", "hit"), [("claim.after", 1), ("renew.after", 4)])
def test_a_worker_whose_disk_fails_ends_and_what_it_ran_runs_again(project: Project, point: str, hit: int) -> None:
    """In whichever thread: one that went on would keep runs that it doesn't perform."""
    project.write(JOBS)
    run = project.enqueue("gate")
    worker = project.start(env={"HUEYCTL_FAILPOINTS": f"{point}=error@{hit}"})
    assert worker.ended() == 4, worker.log
    assert f"the disk failed (Input/output error, failpoint {point})" in worker.log
    assert "Traceback" not in worker.log
    (project.dir / "go").touch()
    project.burst()
    found = project.run(run)
    assert (found["state"], found["losses"]) == ("succeeded", found["attempt"] - 1)
    assert found["attempt"] == 2 or point == "renew.after", "on a busy machine it may come before the claim"


def test_a_store_that_another_process_keeps_locked_is_waited_for(project: Project) -> None:
    """For several leases: nothing is rescued, killed, or lost; who types is told after five seconds."""
    project.write(JOBS)
    with project.worker("-c", "2") as worker, project.worker("-c", "2") as other:
        running = project.enqueue("gate")
        ending = project.enqueue("gate", "n=2")
        eventually(lambda: len(project.lines("marks")) == 2)
        with contextlib.closing(sqlite3.connect(project.store, isolation_level=None, timeout=20)) as locker:
            locker.execute("BEGIN IMMEDIATE")
            locked = project.popen("enqueue", "mark", "--json")
            out, err = locked.communicate(timeout=30)  # with its five seconds: five leases
            assert locked.returncode == 4
            assert out == b""
            assert b"store-busy" in err
            assert project.run(running)["state"] == "running"
            (project.dir / "go").touch()
            eventually(lambda: len(project.lines("marks")) == 4)
            locker.execute("ROLLBACK")
        for run in (running, ending):
            found = project.reaches(run, "succeeded")
            assert (found["attempt"], found["losses"]) == (1, 0)
        project.reaches(project.enqueue("mark"), "succeeded")
        assert (worker.process.poll(), other.process.poll()) == (None, None)
        events = project.events()  # now: of two that are killed, the second sees the first one's death
    assert {event["type"] for event in events} == {"worker-online", "enqueued", "executing", "complete"}


def test_a_store_that_cannot_be_written_can_still_be_read(project: Project) -> None:
    project.write(JOBS)
    run = project.enqueue("mark")
    project.burst()
    waiting = project.enqueue("mark")
    before = project.store.read_bytes()
    with _read_only(project):
        for words in (["runs"], ["inspect", run], ["result", run], ["logs", run], ["events"], ["wait", run], ["jobs"]):
            project.cli(*words)
        for words in (["enqueue", "mark"], ["revoke", waiting], ["pause"], ["worker", "start", "--burst"]):
            assert project.cli(*words, code=4).out == ""
    assert project.store.read_bytes() == before
    project.burst()
    assert project.run(waiting)["state"] == "succeeded"


@contextlib.contextmanager
def _read_only(project: Project) -> Iterator[None]:
    """Nothing beside the store can be written by what is typed; root types without what lets it pass permissions."""
    modes = {path: path.stat().st_mode for path in (project.store.parent, *project.store.parent.rglob("*"))}
    for path in modes:
        path.chmod(0o500 if path.is_dir() else 0o400)
    command = project.command
    if os.getuid() == 0:
        powerless = project.dir / "powerless"
        drop = "setpriv --bounding-set=-dac_override,-dac_read_search,-fowner"
        powerless.write_text(f'#!/bin/sh\nexec {drop} "{command}" "$@"\n')
        powerless.chmod(0o700)
        project.command = powerless
    try:
        yield
    finally:
        project.command = command
        for path, mode in modes.items():
            path.chmod(mode)
