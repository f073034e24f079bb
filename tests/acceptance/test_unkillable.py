"""What a worker can't kill (it waits for a dead disk, or is another user's) outlives it, and its run waits for that."""

from __future__ import annotations

import os
import signal
import sys

import pytest
from harness import Project, eventually

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


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts something that is another user's")
def test_the_run_of_what_cant_be_killed_is_given_back_when_it_is_gone(project: Project) -> None:
    project.write(
        f"""
        [worker]
        shutdown_timeout = "0.5s"

        [jobs.stuck]
        command = ["{sys.executable}", "stuck.py"]
        kill_after = "0.2s"
        """
    )
    (project.dir / "stuck.py").write_text(BODY)
    seen = project.dir / "seen.txt"
    worker = project.start(prefix=WITHOUT_KILL)
    try:
        run = project.enqueue("stuck")
        eventually(lambda: seen.exists() and seen.read_text() == "begins 1\n")
        worker.process.send_signal(signal.SIGTERM)
        assert worker.ended(60) == 1, worker.log
    finally:
        if worker.process.poll() is None:
            worker.kill()
    assert "what it runs can't be killed" in worker.log
    assert project.history(run) == [(None, "enqueued"), (1, "executing")]
    assert project.run(run)["state"] == "running"
    project.burst()
    assert seen.read_text().split("\n") == ["begins 1", "begins 2", "ends 2", ""]
    assert project.history(run)[2:] == [(1, "lost"), (2, "executing"), (2, "complete")]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts something that is another user's")
def test_a_worker_whose_guard_dies_over_what_cant_be_killed_ends(project: Project) -> None:
    """It went on claiming what it couldn't start, and no signal ended it."""
    project.write(
        f"""
        [jobs.stuck]
        command = ["{sys.executable}", "stuck.py"]
        [jobs.quick]
        command = ["true"]
        """
    )
    (project.dir / "stuck.py").write_text(BODY)
    seen = project.dir / "seen.txt"
    worker = project.start(prefix=WITHOUT_KILL)
    try:
        run = project.enqueue("stuck")
        eventually(lambda: seen.exists() and seen.read_text() == "begins 1\n")
        (guard,) = [pid for pid, line in project.processes().items() if "guard_main" in line]
        os.kill(guard, signal.SIGKILL)
        quick = [project.enqueue("quick") for _ in range(5)]
        assert worker.ended(60) == 1, worker.log
    finally:
        if worker.process.poll() is None:
            worker.kill()
    assert "what it ran can't be killed" in worker.log
    assert project.history(run) == [(None, "enqueued"), (1, "executing")]
    project.burst()
    assert seen.read_text().split("\n") == ["begins 1", "begins 2", "ends 2", ""]
    assert {project.run(id)["state"] for id in [run, *quick]} == {"succeeded"}
