"""Terminals that close, pipes that break, folders with odd names, guards that die: the worker goes on."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pexpect
import pytest
from harness import Project, eventually

JOBS = """
    [jobs.gate]
    script = 'echo started >> marks; until [ -e go ]; do sleep 0.05; done; echo ended >> marks'
    [jobs.mark]
    script = 'echo "$PARAM_NAME" >> marks'
    params = { name = "x" }
    """

pytestmark = pytest.mark.filterwarnings("ignore:.*forkpty.*:DeprecationWarning")  # pexpect's, with xdist's threads


def spawn(project: Project, *words: str) -> pexpect.spawn[str]:
    return pexpect.spawn(
        str(project.command),
        list(words),
        cwd=str(project.dir),
        env=project.env,
        dimensions=(50, 200),
        encoding="utf-8",
        timeout=30,
    )


def test_ctrl_c_in_the_workers_terminal_lets_what_runs_finish(project: Project) -> None:
    project.write(JOBS)
    worker = spawn(project, "worker", "start")
    worker.expect("online")
    run = project.enqueue("gate")
    eventually(lambda: project.lines("marks") == ["started"])
    worker.sendintr()
    worker.expect("stopping")
    (project.dir / "go").touch()
    worker.expect(pexpect.EOF)
    worker.close()
    assert worker.exitstatus == 0
    assert project.run(run)["state"] == "succeeded"
    assert project.run(run)["attempt"] == 1


def test_a_second_ctrl_c_interrupts_what_runs(project: Project) -> None:
    project.write(JOBS)
    worker = spawn(project, "worker", "start")
    worker.expect("online")
    run = project.enqueue("gate")
    eventually(lambda: project.lines("marks") == ["started"])
    worker.sendintr()
    worker.expect("stopping")
    worker.sendintr()
    worker.expect(pexpect.EOF)
    worker.close()
    assert project.run(run)["state"] == "queued"


def test_a_worker_outlives_the_terminal_that_it_was_started_in(project: Project) -> None:
    project.write(JOBS)
    worker = spawn(project, "worker", "start")
    try:
        worker.expect("online")
        os.close(worker.child_fd)  # the terminal is gone: the worker gets HUP, and can't write there any more
        project.reaches(project.enqueue("mark", "name=still"), "succeeded")
        project.reaches(project.enqueue("mark", "name=there"), "succeeded")
        project.cli("worker", "stop")
    finally:
        for pid in project.processes():
            os.kill(pid, signal.SIGKILL)
        worker.closed, worker.child_fd = True, -1
        os.waitpid(worker.pid, 0)
    assert project.lines("marks") == ["still", "there"]


def test_a_worker_outlives_the_pipe_that_it_logs_to(project: Project) -> None:
    project.write(JOBS)
    worker = project.popen("worker", "start")
    try:
        eventually(lambda: len(project.workers()) == 1)
        assert worker.stdout is not None
        assert worker.stderr is not None
        worker.stdout.close()
        worker.stderr.close()
        project.reaches(project.enqueue("mark", "name=still"), "succeeded")
        project.reaches(project.enqueue("mark", "name=there"), "succeeded")
        project.cli("worker", "stop")
        worker.wait(10)
    finally:
        worker.kill()
        worker.wait()


def test_a_worker_goes_on_when_its_guard_is_killed(project: Project) -> None:
    project.write(JOBS)
    with project.worker() as worker:
        run = project.enqueue("gate")
        eventually(lambda: project.lines("marks") == ["started"])
        (guard,) = (pid for pid, line in project.processes().items() if "guard" in line)
        os.kill(guard, signal.SIGKILL)
        eventually(lambda: project.run(run)["attempt"] == 2, what="a second attempt")
        (project.dir / "go").touch()
        project.reaches(run, "succeeded")
        assert worker.process.poll() is None
        project.reaches(project.enqueue("mark", "name=after"), "succeeded")
    assert project.lines("marks") == ["started", "started", "ended", "after"]
    assert [kind for _, kind in project.history(run)] == ["enqueued", "executing", "lost", "executing", "complete"]


@pytest.mark.parametrize("name", ["with a space", "grün 🦊", "-dash", "quote'\"$HOME", "x" * 120 + "/" + "y" * 120])
def test_the_project_may_lie_in_a_folder_of_any_name(project: Project, name: str) -> None:
    project.dir = project.dir / name
    project.dir.mkdir(parents=True)
    project.write(JOBS)
    with project.worker():
        run = project.enqueue("mark")
        project.reaches(run, "succeeded")
    assert project.lines("marks") == ["x"]
    assert project.cli("logs", run).raw == b""


def test_the_file_may_be_reached_by_a_link_that_moves_with_each_release(project: Project, tmp_path: Path) -> None:
    releases, current = tmp_path / "releases", tmp_path / "current"
    for number in (1, 2):
        folder = releases / str(number)
        folder.mkdir(parents=True)
        (folder / "jobs.toml").write_text(
            f'[hueyctl]\nstore = "{project.store}"\n[jobs.mark]\nscript = "pwd; echo {number}"\n'
        )
    current.symlink_to(releases / "1")
    file = str(current / "jobs.toml")
    project.env["HUEYCTL_FILE"] = file
    with project.worker() as worker:
        assert project.reaches(project.enqueue("mark"), "succeeded")["result"].endswith("\n1")
        current.unlink()
        current.symlink_to(releases / "2")
        worker.signal(signal.SIGHUP)
        eventually(lambda: any(event["type"] == "reloaded" for event in project.events()))
        result = project.reaches(project.enqueue("mark"), "succeeded")["result"]
        assert result == f"{releases / '2'}\n2"


def test_a_job_has_no_input_and_its_worker_keeps_the_terminal(project: Project) -> None:
    project.write('[jobs.read]\nscript = "cat; echo end"\n')
    worker = spawn(project, "worker", "start", "--burst")
    run = project.enqueue("read")
    worker.expect(pexpect.EOF)
    worker.close()
    if project.run(run)["state"] == "queued":  # the burst was over before
        project.burst()
    assert project.run(run)["result"] == "end"


def test_a_store_that_is_deleted_while_a_worker_runs_ends_it(project: Project) -> None:
    project.write(JOBS)
    with project.worker() as worker:
        project.reaches(project.enqueue("mark"), "succeeded")
        shutil.rmtree(project.store.parent)
        assert worker.ended(20) == 4, worker.log
        assert "Traceback" not in worker.log
    assert not project.processes()


def test_a_file_that_is_gone_leaves_the_worker_as_it_was(project: Project) -> None:
    project.write(JOBS)
    with project.worker() as worker:
        run = project.enqueue("gate")
        (project.dir / "jobs.toml").unlink()
        worker.signal(signal.SIGHUP)
        eventually(lambda: "not reloaded" in worker.log)
        (project.dir / "go").touch()
        project.write(JOBS)
        project.reaches(run, "succeeded")


def test_a_job_may_take_its_own_folder_away(project: Project) -> None:
    project.write('[jobs.rm]\ndir = "sub"\nscript = "rmdir ../sub; echo done"\n')
    (project.dir / "sub").mkdir()
    first, second = project.enqueue("rm"), project.enqueue("rm")
    project.burst("-c", "1")
    assert project.run(first)["state"] == "succeeded"
    assert project.run(second)["exit_code"] == 126
