"""However a body ends, the attempt ends with the true cause, and the worker goes on."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from harness import Project, eventually

BODIES = """
    import ctypes, os, signal, sys, threading, time
    from hueyctl import current_run

    def returns():
        return {"run": current_run().id, "attempt": current_run().attempt}

    def nothing():
        pass

    def returns_no_json():
        return {"a": object()}

    def returns_nan():
        return float("nan")

    def returns_surrogate():
        return "\\ud800"

    def returns_much():
        return "x" * 3_000_000

    def raises():
        raise ValueError("the reason")

    def raises_bytes():
        raise ValueError("lone \\ud800 and \\x1b[31mred")

    def exits():
        sys.exit(7)

    def exits_with_text():
        sys.exit("a last word")

    def exits_well():
        sys.exit()

    def exits_hard():
        os._exit(9)

    def segfaults():
        ctypes.string_at(0)

    def is_killed():
        os.kill(os.getpid(), signal.SIGKILL)

    def interrupts():
        raise KeyboardInterrupt

    def loops():
        while True:
            pass

    def leaves_a_thread():
        threading.Thread(target=time.sleep, args=(300,)).start()
        return os.getpid()

    def pid():
        return os.getpid()

    async def waits():
        return "waited"
    """


def python(project: Project, name: str, *keys: str) -> None:
    project.file("bodies.py", BODIES)
    project.write(f'[jobs.it]\npython = "bodies:{name}"\n' + "".join(f"{key}\n" for key in keys))


@pytest.mark.parametrize(
    ("name", "state", "exit_code", "said"),
    [
        ("nothing", "succeeded", None, None),
        ("returns_no_json", "failed", None, "JSON"),
        ("returns_nan", "failed", None, "JSON"),
        ("raises", "failed", None, "ValueError: the reason"),
        ("raises_bytes", "failed", None, "lone"),
        ("exits", "failed", 7, "exited with 7"),
        ("exits_with_text", "failed", 1, "exited with 1"),
        ("exits_well", "succeeded", 0, None),
        ("exits_hard", "failed", 9, "exited with 9"),
        ("segfaults", "failed", 139, "SIGSEGV"),
        ("is_killed", "failed", 137, "SIGKILL"),
        ("interrupts", "failed", None, "KeyboardInterrupt"),
        ("loops", "failed", 124, "timed out"),
        ("is_not_there", "failed", 126, "is_not_there"),
    ],
)
def test_a_python_job_ends_with_the_true_cause(
    project: Project, name: str, state: str, exit_code: int | None, said: str | None
) -> None:
    python(project, name, 'timeout = "500ms"' if name == "loops" else 'timeout = "30s"')
    run = project.enqueue("it")
    project.burst()
    found = project.run(run)
    assert (found["state"], found["exit_code"]) == (state, exit_code), found
    if said is not None:
        assert said in found["reason"], found


def test_a_python_job_returns_json_and_knows_its_run(project: Project) -> None:
    python(project, "returns")
    run = project.enqueue("it")
    project.burst()
    assert project.run(run)["result"] == {"run": run, "attempt": 1}


def test_a_coroutine_is_a_python_job_too(project: Project) -> None:
    python(project, "waits")
    run = project.enqueue("it")
    project.burst()
    assert project.run(run)["result"] == "waited"


def test_a_lone_surrogate_in_a_result_hurts_nobody(project: Project) -> None:
    python(project, "returns_surrogate")
    run = project.enqueue("it")
    project.burst()
    assert project.run(run)["state"] in {"succeeded", "failed"}
    project.cli("result", run, code=0 if project.run(run)["state"] == "succeeded" else 1)
    project.cli("inspect", run)


def test_a_result_that_is_too_large_is_null_with_a_reason(project: Project) -> None:
    python(project, "returns_much")
    run = project.enqueue("it")
    project.burst()
    found = project.run(run)
    assert (found["state"], found["result"]) == ("succeeded", None)
    assert found["result_error"]


def test_a_traceback_names_the_jobs_own_lines_alone(project: Project) -> None:
    python(project, "raises")
    run = project.enqueue("it")
    project.burst()
    logs = project.cli("logs", run)
    printed = logs.out + logs.err
    assert 'raise ValueError("the reason")' in printed
    assert "hueyctl" not in printed


def test_python_jobs_share_a_warm_child_until_one_leaves_something_behind(project: Project) -> None:
    project.file("bodies.py", BODIES)
    project.write('[jobs.pid]\npython = "bodies:pid"\n[jobs.thread]\npython = "bodies:leaves_a_thread"\n')
    pids = [project.enqueue("pid") for _ in range(4)]
    threads = [project.enqueue("thread") for _ in range(2)]
    project.burst("-c", "1")
    assert len({project.run(run)["result"] for run in pids}) == 1
    assert len({project.run(run)["result"] for run in threads}) == 2


def test_a_tiny_python_job_may_run_in_the_workers_own_thread(project: Project) -> None:
    project.file("bodies.py", BODIES)
    project.write('[jobs.pid]\npython = "bodies:pid"\nisolation = "thread"\n')
    run = project.enqueue("pid")
    with project.worker() as worker:
        project.reaches(run, "succeeded")
        assert project.run(run)["result"] == worker.pid


@pytest.mark.parametrize(
    ("body", "exit_code", "said"),
    [
        ('command = ["no-such-program", "--secret={p}"]', 127, "no-such-program"),
        ('command = ["./not-executable"]', 126, "not-executable"),
        ('command = ["true"]\ndir = "nowhere"', 126, "nowhere"),
        ('script = "true"\nshell = ["no-such-shell", "-c"]', 127, "no-such-shell"),
        ('script = "exit 3"', 3, "exited with 3"),
        ('script = "kill -9 $$"', 137, "SIGKILL"),
        ('script = "false; true"', 1, "exited with 1"),
        ('script = "false | cat"', 1, "exited with 1"),
        ('command = ["sleep", "300"]\ntimeout = "300ms"', 124, "timed out"),
        ('script = "trap \'\' TERM; sleep 300"\ntimeout = "300ms"\nkill_after = "300ms"', 124, "timed out"),
    ],
)
def test_a_program_ends_with_the_true_cause(project: Project, body: str, exit_code: int, said: str) -> None:
    project.file("not-executable", "true\n")
    project.write(f'[jobs.it]\n{body}\nparams = {{ p = "hush" }}\n[jobs.after]\ncommand = ["true"]\n')
    run = project.enqueue("it")
    after = project.enqueue("after")
    project.burst()
    found = project.run(run)
    assert (found["state"], found["exit_code"]) == ("failed", exit_code), found
    assert said in found["reason"]
    assert "hush" not in found["reason"]
    assert project.run(after)["state"] == "succeeded"
    assert found["reason"] in project.cli("inspect", run).out


def test_an_attempt_ends_with_its_leader_even_if_a_daemon_holds_its_output(project: Project) -> None:
    project.write("[jobs.it]\nscript = 'echo done; (setsid sleep 300 &)'\n")
    run = project.enqueue("it")
    began = time.monotonic()
    with project.worker():
        project.reaches(run, "succeeded")
        assert time.monotonic() - began < 15
        eventually(lambda: not any("sleep 300" in line for line in project.processes().values()), timeout=5)
    assert project.run(run)["result"] == "done"


def test_what_an_attempt_left_running_is_named_wherever_it_is_looked_for(project: Project) -> None:
    project.write("[jobs.it]\nscript = 'echo done; setsid sleep 300 & until grep -q sleep /proc/$!/comm; do :; done'\n")
    run = project.enqueue("it")
    log = project.burst()
    said = "what it left running was killed: sleep"
    assert f"it {run[:8]} attempt 1 succeeded; {said}" in log
    assert said in project.cli("inspect", run).out
    shown = project.cli("logs", run)
    assert (shown.out, said in shown.err) == ("done\n", True)
    assert project.events("--run", run, "--type", "complete")[0]["data"]["left_running"] == said
    assert project.cli("inspect", run, "--json").json["attempts"][0]["left_running"] == said


def test_a_gigabyte_without_a_newline_is_cut_in_the_middle_and_costs_no_memory(project: Project) -> None:
    project.write(
        """
        [jobs.flood]
        script = "printf head; head -c 1000000000 /dev/zero | tr '\\\\0' x; printf tail"
        """
    )
    with project.worker() as worker:
        run = project.enqueue("flood")
        project.reaches(run, "succeeded", timeout=60)
        peak_kib = max(_peak_kib(pid) for pid in project.processes())
        assert worker.process.poll() is None
    assert peak_kib < 200 * 1024
    stored = sum(path.stat().st_size for path in (project.store.parent / "output").rglob("*") if path.is_file())
    assert 9_000_000 < stored < 12_000_000
    logs = project.cli("logs", run).raw
    assert logs.startswith(b"headxxx")
    assert logs.rstrip(b"\n").endswith(b"xxxtail")
    assert b"bytes cut" in logs
    found = project.run(run)
    assert found["result"] is None
    assert found["result_error"]


def test_output_that_is_no_utf8_is_kept_as_it_is_and_shown_as_well_as_can_be(project: Project) -> None:
    project.write("[jobs.bytes]\nscript = \"printf 'a\\\\377\\\\376\\\\000z'\"\n")
    run = project.enqueue("bytes")
    project.burst()
    assert project.cli("logs", run).raw == b"a\xff\xfe\x00z"
    assert project.run(run)["result"] == "a\ufffd\ufffd\x00z"
    project.cli("inspect", run)


def _peak_kib(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)


def test_output_that_could_not_be_kept_is_said_wherever_it_is_looked_for(project: Project) -> None:
    """As on a full disk: the run succeeds all the same, and nobody takes what there is for all."""
    project.write(
        """
        [jobs.lost]
        script = 'mkdir -p ".hueyctl/output/$HUEYCTL_RUN_ID/1.out"; echo lost; echo kept >&2'
        """
    )
    run = project.enqueue("lost")
    log = project.burst()
    said = "not all of its output could be kept (stdout: Is a directory)"
    assert f"lost {run[:8]} attempt 1 succeeded; {said}" in log
    assert said in project.cli("inspect", run).out
    shown = project.cli("logs", run, "--stderr")
    assert (shown.out, said in shown.err) == ("kept\n", True)
    assert "1.out: not a file" in project.cli("logs", run, code=4).err
    assert project.events("--run", run, "--type", "complete")[0]["data"]["output_error"] == said
