"""The Python API, from a process of an application's own."""

from __future__ import annotations

import subprocess
import textwrap
from pathlib import Path

from harness import Project

JOBS = """
    [jobs.add]
    python = "sums:add"
    params = { a = 1, b = { type = "integer", required = true } }
    [jobs.bad]
    command = ["false"]
    """


def prepare(project: Project) -> None:
    project.write(JOBS)
    project.file("sums.py", "def add(a, b): return a + b\n")


def python(project: Project, installed: Path, code: str, *options: str) -> str:
    """Run a program with the installed package, warnings as errors, and return what it printed."""
    done = subprocess.run(
        [installed / "python", "-W", "error", *options, "-c", textwrap.dedent(code)],
        cwd=project.dir,
        env=project.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_application_enqueues_and_waits(project: Project, installed: Path) -> None:
    prepare(project)
    with project.worker():
        out = python(
            project,
            installed,
            """
            import hueyctl
            queue = hueyctl.open_queue("jobs.toml")
            run = queue.enqueue("add", b=2, a=40)
            ended = queue.wait(run.id, timeout=20)
            print(ended.state, ended.result)
            """,
        )
    assert out.split() == ["succeeded", "42"]


def test_errors_of_the_api_are_those_of_the_command(project: Project, installed: Path) -> None:
    prepare(project)
    out = python(
        project,
        installed,
        """
        import hueyctl
        queue = hueyctl.open_queue("jobs.toml")
        for job, params in (("ad", {}), ("add", {}), ("add", {"b": "x"}), ("add", {"b": 1, "c": 1})):
            try:
                queue.enqueue(job, **params)
            except hueyctl.HueyctlError as error:
                print(type(error).__name__, error.exit_code)
        """,
    )
    assert out.splitlines() == ["NotFound 3", "UsageError 2", "UsageError 2", "UsageError 2"]


def test_one_queue_serves_threads_and_forked_children(project: Project, installed: Path) -> None:
    prepare(project)
    python(
        project,
        installed,
        """
        import os, threading
        import hueyctl
        queue = hueyctl.open_queue("jobs.toml")
        queue.enqueue("add", b=0)

        def many():
            for b in range(20):
                queue.enqueue("add", b=b)

        threads = [threading.Thread(target=many) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        pid = os.fork()
        if pid == 0:
            many()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        many()
        """,
    )
    assert len(project.runs()) == 1 + 4 * 20 + 20 + 20


def test_importing_the_package_loads_nothing_heavy(project: Project, installed: Path) -> None:
    out = python(project, installed, "import sys, hueyctl; print(*sorted(sys.modules))")
    assert not set(out.split()) & {"huey", "typer", "rich", "msgspec", "sqlite3", "asyncio"}


def test_outside_a_job_there_is_no_current_run(project: Project, installed: Path) -> None:
    out = python(
        project,
        installed,
        """
        import hueyctl
        try:
            hueyctl.current_run()
        except RuntimeError as error:
            print(error)
        """,
    )
    assert out.strip()
