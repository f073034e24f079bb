"""A disk that is full, a store that is locked or can't be written: told, waited out, and nothing lost."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sqlite3
import subprocess
from collections.abc import Iterator

import pytest
from harness import Project, eventually

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

LITTLE = 4096  # bytes, in which nothing of a store fits


class Disk:
    """What the store lies on, which can be full: a small tmpfs where we may mount one; elsewhere no process of the
    project may make a file longer."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.folder = project.store.parent
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
    disk = Disk(project)
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
        disk.fill()
        while _try_to_enqueue(project, 0):
            pass
        (project.dir / "go").touch()
        eventually(lambda: sorted(project.lines("marks"))[-1] == "2 started" and len(project.lines("marks")) == 4)
        # Longer than its lease: nobody is taken for dead meanwhile.
        eventually(lambda: worker.log.count("no heartbeat") >= 3)
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
