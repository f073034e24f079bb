"""What a worker can't kill (it waits for a dead disk, or is another user's) outlives it, and its run waits for that."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator

import pytest
from harness import Project, WorkerProcess, eventually

# A root that may signal nobody but itself, as in many containers.
WITHOUT_KILL = [
    sys.executable,
    "-c",
    "import ctypes, os, sys\n"
    "PR_CAPBSET_DROP, CAP_KILL = 24, 5\n"
    "assert ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_KILL, 0, 0, 0) == 0\n"
    "os.execv(sys.argv[1], sys.argv[1:])\n",
]

BODY = """
import os, time
log = open("seen.txt", "a", buffering=1)
attempt = os.environ["HUEYCTL_ATTEMPT"]
os.setuid(65534)
print("begins", attempt, file=log)
while attempt == "1": time.sleep(0.05)
print("ends", attempt, file=log)
"""


pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root starts something that is another user's")


@contextlib.contextmanager
def stuck(project: Project, more: str) -> Iterator[tuple[WorkerProcess, str]]:
    """A worker, and the run of what it can't kill; `more` of the file beside that job."""
    project.write(f'[jobs.stuck]\ncommand = ["{sys.executable}", "stuck.py"]\nkill_after = "0.2s"\n{more}')
    (project.dir / "stuck.py").write_text(BODY)
    worker = project.start(prefix=WITHOUT_KILL)
    try:
        run = project.enqueue("stuck")
        eventually(lambda: project.lines("seen.txt") == ["begins 1"])
        yield worker, run
    finally:
        if worker.process.poll() is None:
            worker.kill()


def test_the_run_of_what_cant_be_killed_is_given_back_when_it_is_gone(project: Project) -> None:
    with stuck(project, '[worker]\nshutdown_timeout = "0.5s"\n') as (worker, run):
        worker.process.send_signal(signal.SIGTERM)
        assert worker.ended(60) == 1, worker.log
    assert "what it runs can't be killed" in worker.log
    assert project.history(run) == [(None, "enqueued"), (1, "executing")]
    assert project.run(run)["state"] == "running"
    project.burst()
    assert project.lines("seen.txt") == ["begins 1", "begins 2", "ends 2"]
    assert project.history(run)[2:] == [(1, "lost"), (2, "executing"), (2, "complete")]


def test_a_worker_whose_guard_dies_over_what_cant_be_killed_ends(project: Project) -> None:
    """It went on claiming what it couldn't start, and no signal ended it."""
    with stuck(project, '[jobs.quick]\ncommand = ["true"]\n') as (worker, run):
        (guard,) = [pid for pid, line in project.processes().items() if "guard_main" in line]
        os.kill(guard, signal.SIGKILL)
        quick = [project.enqueue("quick") for _ in range(5)]
        assert worker.ended(60) == 1, worker.log
    assert "what it ran can't be killed" in worker.log
    assert project.history(run) == [(None, "enqueued"), (1, "executing")]
    project.burst()
    assert project.lines("seen.txt") == ["begins 1", "begins 2", "ends 2"]
    assert {project.run(id)["state"] for id in [run, *quick]} == {"succeeded"}
