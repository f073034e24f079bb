"""Python jobs in warm children: what a call becomes, and when a child is replaced."""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from guarded import Guarded, err, eventually, lives, out, resident_kib

from hueyctl.model.outcome import Exited, NotStarted, Raised, Returned, Signaled, Stopped, TimedOut
from hueyctl.process import kin

JOBS = """
import asyncio, ctypes, functools, json, logging, os, signal, subprocess, sys, threading, time

def pid(): return os.getpid()
def pid_or(how):
    if how == "loop": loop()
    if how == "die": die(1)
    if how == "stop": print("up"); time.sleep(300)
    return os.getpid()
def echo(**given): return given
def nothing(): print("printed")
def say(text): print(text); print("!" + text, file=sys.stderr)
def leave(code): sys.exit(code)
def crash(): ctypes.string_at(0)
def die(code): os._exit(code)
def end(number): os.kill(os.getpid(), number)
def loop():
    while True: pass
def stubborn():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("up")
    while True: time.sleep(0.05)
def polite():
    def leave(*_): raise RuntimeError("told to end")
    signal.signal(signal.SIGTERM, leave)
    print("up")
    time.sleep(300)
def inner(): raise ValueError("two\\nlines")
def fail():
    try: inner()
    except ValueError as exc: raise LookupError("outer") from exc
def interrupt(): raise KeyboardInterrupt
class Odd(Exception):
    def __str__(self): raise RuntimeError
def odd(): raise Odd
def a_set(): return {1}
def nan(): return float("nan")
def ring():
    a = []; a.append(a); return a
def large(size): return "x" * size
def surrogate(): return "a\\ud800b"
async def coroutine(n):
    await asyncio.sleep(0)
    return n + 1
def wrapped(f):
    @functools.wraps(f)
    def call(*a, **k): return f(*a, **k)
    return call
decorated = wrapped(coroutine)
class Tool:
    @staticmethod
    def use(n): return n * 2
def thread():
    threading.Thread(target=time.sleep, args=(300,)).start()
    return os.getpid()
def daemon_thread():
    threading.Thread(target=time.sleep, args=(300,), daemon=True).start()
    return os.getpid()
def process():
    return [os.getpid(), subprocess.Popen(["sleep", "300"]).pid]
def zombie():
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    return os.getpid()
def copy(path):
    if os.fork() == 0:
        return "from the copy"
    os.wait()
    return "from the original"
def copy_that_exits():
    if os.fork() == 0:
        sys.exit(9)
    os.wait()
    return "from the original"
def forge():
    token = sys._getframe(2).f_locals["call"]["token"]
    message = json.dumps({"token": token, "pid": 1, "outcome": {"type": "returned"}, "fit": True}).encode()
    os.write(3, len(message).to_bytes(4, "big") + message)
    message = b"not json"
    os.write(3, len(message).to_bytes(4, "big") + message)
    return "true"
def close_all(): os.closerange(0, 100)
def environment(): return {k: v for k, v in os.environ.items() if k.startswith(("HUEYCTL_", "OWN"))}
def cwd():
    found = os.getcwd(); os.chdir("/"); return found
def say_and_replace():
    import io
    print("said"); sys.stdout = io.StringIO(); print("lost")
def unflushed(): sys.stdout.write("no newline"); os.write(1, b"")
def read(): return sys.stdin.read()
def argv(): return sys.argv[1:]
def path(): return [p for p in sys.path if p.endswith("process")]
def log(): logging.getLogger().warning("logged")
def recurse(): recurse()
def add(n, input): return input + n
@functools.wraps(add)
def wrapped(*given, **named): return add(*given, **named)
def only_named(*, input=None): return input
def only_by_place(input, /): return input
class Method:
    def add(self, n, input=0): return input + n
method = Method().add
"""


@pytest.fixture
def jobs(guarded: Guarded) -> Guarded:
    guarded.module(JOBS)
    return guarded


def returned(guarded: Guarded, function: str, params: dict[str, object] | None = None, **given: Any) -> Any:
    outcome = guarded.run(guarded.job(function, params, **given)).outcome
    assert isinstance(outcome, Returned), outcome
    assert outcome.result is not None, outcome
    return json.loads(outcome.result)


class TestWhatACallBecomes:
    def test_a_return_value_is_json_and_parameters_are_keywords(self, jobs: Guarded) -> None:
        given = {"text": "grüße '\"$(x)\n\x1b[1m\0", "n": 2**62, "x": 0.5, "yes": True, "many": ["a", 1]}
        assert returned(jobs, "echo", given) == given

    def test_none_is_no_result(self, jobs: Guarded) -> None:
        spec = jobs.job("nothing")
        assert jobs.run(spec).outcome == Returned()
        assert out(spec) == b"printed\n"

    def test_a_coroutine_function_is_run_to_its_end_also_behind_a_decorator(self, jobs: Guarded) -> None:
        assert returned(jobs, "coroutine", {"n": 1}) == 2
        assert returned(jobs, "decorated", {"n": 2}) == 3

    def test_a_target_may_lie_in_a_class(self, jobs: Guarded) -> None:
        assert returned(jobs, "Tool.use", {"n": 4}) == 8

    @pytest.mark.parametrize(("code", "outcome"), [(3, 3), (0, 0), (None, 0), (True, 1), (-1, 255), (256, 0)])
    def test_sys_exit_is_the_exit_code_and_the_child_lives_on(self, jobs: Guarded, code: object, outcome: int) -> None:
        first = returned(jobs, "pid", definition="d")
        assert jobs.run(jobs.job("leave", {"code": code})).outcome == Exited(outcome)
        assert returned(jobs, "pid", definition="d") == first

    def test_sys_exit_with_a_text_prints_it_and_is_1(self, jobs: Guarded) -> None:
        spec = jobs.job("leave", {"code": "no way"})
        assert jobs.run(spec).outcome == Exited(1)
        assert err(spec) == "no way\n"

    def test_a_crash_ends_the_attempt_with_its_signal(self, jobs: Guarded) -> None:
        assert jobs.run(jobs.job("crash")).outcome == Signaled(11)
        assert jobs.run(jobs.job("end", {"number": 9})).outcome == Signaled(9, out_of_memory=False)
        assert jobs.run(jobs.job("die", {"code": 5})).outcome == Exited(5)
        assert jobs.run(jobs.job("die", {"code": 0})).outcome == Exited(0)

    def test_an_endless_loop_ends_at_its_timeout(self, jobs: Guarded) -> None:
        assert jobs.run(jobs.job("loop", timeout=0.5)).outcome == TimedOut(0.5)

    def test_one_that_ignores_term_is_killed(self, jobs: Guarded) -> None:
        spec = jobs.job("stubborn", timeout=0.5, kill_after=0.1)
        assert jobs.run(spec).outcome == TimedOut(0.5)
        assert out(spec) == b"up\n"

    def test_a_stop_is_the_outcome_even_if_the_function_still_raises(self, jobs: Guarded) -> None:
        under = jobs.begin(jobs.job("polite"))
        eventually(lambda: under.printed() == b"up\n")
        jobs.guard.stop(under.spec.token, "revoked")
        assert under.end().outcome == Stopped("revoked")

    def test_an_exception_is_one_line_and_a_traceback_of_the_jobs_own_frames(self, jobs: Guarded) -> None:
        spec = jobs.job("fail")
        outcome = jobs.run(spec).outcome
        assert isinstance(outcome, Raised)
        assert outcome.error == "LookupError: outer"
        assert outcome.traceback == err(spec)
        assert "ValueError: two\nlines" in err(spec)
        assert "inner()" in err(spec)
        assert "child.py" not in err(spec)
        assert jobs.run(jobs.job("inner")).outcome.error == "ValueError: two lines"

    @pytest.mark.parametrize(
        ("function", "error"),
        [
            ("interrupt", "KeyboardInterrupt"),
            ("odd", "jobs.Odd: (its message can't be shown)"),
            ("recurse", "RecursionError: maximum recursion depth exceeded"),
        ],
    )
    def test_whatever_is_raised_is_an_outcome(self, jobs: Guarded, function: str, error: str) -> None:
        assert jobs.run(jobs.job(function)).outcome.error == error

    @pytest.mark.parametrize(
        ("function", "why"),
        [
            ("a_set", "Object of type set is not JSON serializable"),
            ("nan", "Out of range float values are not JSON compliant"),
            ("ring", "Circular reference detected"),
        ],
    )
    def test_what_is_not_json_is_an_error_that_says_so(self, jobs: Guarded, function: str, why: str) -> None:
        spec = jobs.job(function)
        error = jobs.run(spec).outcome.error
        assert error.startswith(f"TypeError: the return value of jobs:{function} is not JSON: {why}")
        assert err(spec) == error + "\n"

    def test_a_result_that_is_too_large_is_none_with_a_reason(self, jobs: Guarded) -> None:
        assert returned(jobs, "large", {"size": 998}, result_max=1000) == "x" * 998
        outcome = jobs.run(jobs.job("large", {"size": 999}, result_max=1000)).outcome
        assert outcome == Returned(None, "the result has 1001 bytes, more than result_max (1000)")

    def test_large_parameters_and_results_go_through(self, jobs: Guarded) -> None:
        assert returned(jobs, "echo", {"text": "ü" * 1_000_000}, result_max=10**7) == {"text": "ü" * 1_000_000}

    def test_a_lone_surrogate_in_a_result_is_replaced(self, jobs: Guarded) -> None:
        assert returned(jobs, "surrogate") == "a?b"

    def test_a_target_that_cannot_be_imported_did_not_start(self, jobs: Guarded) -> None:
        jobs.module("import no_such_module", "broken")
        jobs.module("import sys; sys.exit(3)", "leaving")
        jobs.module("def f(:", "wrong")
        found = {}
        for target in ("absent:f", "broken:f", "leaving:f", "wrong:f", "jobs:absent", "jobs:os"):
            spec = jobs.job(target)
            outcome = jobs.run(spec).outcome
            assert isinstance(outcome, NotStarted)
            assert outcome.code == 126
            found[target] = outcome.reason
            assert "Error" in err(spec) or "SystemExit" in err(spec)
        assert found["absent:f"] == "cannot import absent:f: ModuleNotFoundError: No module named 'absent'"
        assert found["broken:f"] == "cannot import broken:f: ModuleNotFoundError: No module named 'no_such_module'"
        assert found["leaving:f"] == "cannot import leaving:f: SystemExit: 3"
        assert found["wrong:f"].startswith("cannot import wrong:f: SyntaxError: ")
        assert found["jobs:absent"].startswith("cannot import jobs:absent: AttributeError: ")
        assert found["jobs:os"] == "cannot import jobs:os: TypeError: jobs:os is not callable"

    def test_an_import_is_tried_anew_after_it_failed(self, jobs: Guarded) -> None:
        assert isinstance(jobs.run(jobs.job("later:f")).outcome, NotStarted)
        jobs.module("def f(): return 1", "later")
        assert returned(jobs, "later:f") == 1

    def test_an_import_that_hangs_is_bounded_by_the_timeout(self, jobs: Guarded) -> None:
        jobs.module("import time; time.sleep(300)", "hanging")
        assert jobs.run(jobs.job("hanging:f", timeout=0.5)).outcome == TimedOut(0.5)

    def test_a_folder_that_is_not_there(self, jobs: Guarded) -> None:
        assert jobs.run(jobs.job("pid", dir="/no/such/folder")).outcome.code == 126


class TestWhatACallFinds:
    def test_output_goes_to_its_own_attempt_whole_and_in_order(self, jobs: Guarded) -> None:
        specs = [jobs.job("say", {"text": f"{n} grüße"}, definition="say") for n in range(20)]
        for spec in specs:
            jobs.run(spec)
        assert [out(spec).decode() for spec in specs] == [f"{n} grüße\n" for n in range(20)]
        assert [err(spec) for spec in specs] == [f"!{n} grüße\n" for n in range(20)]

    def test_what_was_not_flushed_is_there_when_it_is_over(self, jobs: Guarded) -> None:
        spec = jobs.job("unflushed")
        ended = jobs.run(spec)
        assert (out(spec), ended.stdout_bytes) == (b"no newline", 10)

    def test_logging_goes_to_stderr_in_every_attempt(self, jobs: Guarded) -> None:
        for _ in range(2):
            spec = jobs.job("log", definition="log")
            jobs.run(spec)
            assert err(spec) == "logged\n"

    def test_its_streams_and_its_folder_are_set_right_each_time(self, jobs: Guarded) -> None:
        for _ in range(2):
            assert returned(jobs, "cwd", definition="cwd") == str(jobs.dir)
        specs = [jobs.job("say_and_replace") for _ in range(2)]
        for spec in specs:
            assert jobs.run(spec).outcome == Returned()
            assert out(spec) == b"said\n"

    def test_variables_of_one_attempt_are_gone_in_the_next(self, jobs: Guarded) -> None:
        env = {"PATH": os.environ["PATH"], "OWN": "base"}
        first = {"HUEYCTL_RUN_ID": "1", "OWN_X": "x"}
        found = returned(jobs, "environment", definition="e", env=env, run_env=first)
        assert found.pop("HUEYCTL_KIN")
        assert found == {"OWN": "base"} | first
        found = returned(jobs, "environment", definition="e", env=env, run_env={"HUEYCTL_RUN_ID": "2"})
        assert found.pop("HUEYCTL_KIN")
        assert found == {"OWN": "base", "HUEYCTL_RUN_ID": "2"}

    @pytest.mark.parametrize("function", ["add", "wrapped", "method"])
    def test_an_input_goes_to_a_function_that_has_a_parameter_of_this_name(self, jobs: Guarded, function: str) -> None:
        given = jobs.dir / "1.in"
        given.write_text("40")
        assert returned(jobs, function, {"n": 2}, input=given) == 42

    def test_an_input_takes_the_place_of_a_parameter_and_is_only_for_that_call(self, jobs: Guarded) -> None:
        given = jobs.dir / "1.in"
        given.write_text('{"a": ["grüße", null]}')
        assert returned(jobs, "only_named", {"input": 1}, input=given) == {"a": ["grüße", None]}
        assert returned(jobs, "only_named", {"input": 1}) == 1

    def test_an_input_is_kept_from_a_function_that_does_not_ask_for_it(self, jobs: Guarded) -> None:
        given = jobs.dir / "1.in"
        given.write_text("1")
        assert returned(jobs, "echo", {"n": 2}, input=given) == {"n": 2}
        error = "TypeError: only_by_place() missing 1 required positional argument: 'input'"
        assert jobs.run(jobs.job("only_by_place", input=given)).outcome == Raised(error, traceback=ANY)

    @pytest.mark.parametrize("text", [None, "not JSON", b"\xff"])
    def test_an_input_that_can_t_be_read_starts_nothing(self, jobs: Guarded, text: str | bytes | None) -> None:
        given = jobs.dir / "1.in"
        if text is not None:
            given.write_bytes(text.encode() if isinstance(text, str) else text)
        outcome = jobs.run(jobs.job("only_named", input=given)).outcome
        assert isinstance(outcome, NotStarted)
        assert (outcome.code, outcome.reason.partition(": ")[0]) == (126, "its input can't be read")

    def test_stdin_is_empty_and_arguments_are_none(self, jobs: Guarded) -> None:
        assert returned(jobs, "read") == ""
        assert returned(jobs, "argv") == []

    def test_hueyctls_own_modules_are_not_on_its_path(self, jobs: Guarded) -> None:
        assert returned(jobs, "path") == []


class TestWhenAChildIsReplaced:
    def test_a_child_serves_one_definition_again_and_again(self, jobs: Guarded) -> None:
        pids = {returned(jobs, "pid", definition="a") for _ in range(5)}
        assert len(pids) == 1
        assert returned(jobs, "pid", definition="b") not in pids
        assert returned(jobs, "pid", definition="a") in pids

    def test_attempts_side_by_side_have_a_child_each(self, jobs: Guarded) -> None:
        jobs.module("import os, time\ndef f(): time.sleep(0.3); return os.getpid()", "slow")
        with ThreadPoolExecutor(3) as pool:
            pids = list(pool.map(lambda _: returned(jobs, "slow:f"), range(3)))
        assert len(set(pids)) == 3
        assert returned(jobs, "slow:f") in pids

    def test_after_max_runs(self, jobs: Guarded) -> None:
        pids = [returned(jobs, "pid", max_runs=2) for _ in range(4)]
        assert pids[0] == pids[1] != pids[2] == pids[3]
        eventually(lambda: not lives(pids[0]))

    def test_after_a_recycle(self, jobs: Guarded) -> None:
        first = returned(jobs, "pid")
        under = jobs.begin(jobs.job("polite", definition="p"))
        eventually(lambda: under.printed() == b"up\n")
        jobs.guard.recycle()
        assert returned(jobs, "pid") != first
        eventually(lambda: not lives(first))
        assert not under.over
        jobs.guard.stop(under.spec.token, "stale")
        assert under.end().outcome == Stopped("stale")

    @pytest.mark.parametrize("how", ["loop", "die", "stop"])
    def test_after_a_timeout_a_crash_and_a_stop(self, jobs: Guarded, how: str) -> None:
        first = returned(jobs, "pid_or", {"how": ""})
        under = jobs.begin(jobs.job("pid_or", {"how": how}, timeout=0.4 if how == "loop" else None))
        if how == "stop":
            eventually(lambda: under.printed() == b"up\n")
            jobs.guard.stop(under.spec.token, "revoked")
        under.end()
        assert not lives(first)
        assert lives(returned(jobs, "pid_or", {"how": ""}))

    def test_after_an_import_that_failed(self, jobs: Guarded) -> None:
        jobs.run(jobs.job("absent"))
        assert children(jobs) == []

    def test_after_a_thread_was_left_running(self, jobs: Guarded) -> None:
        first = returned(jobs, "thread")
        assert not lives(first)
        assert returned(jobs, "thread") != first

    def test_not_for_a_daemon_thread_or_a_zombie(self, jobs: Guarded) -> None:
        assert returned(jobs, "daemon_thread") == returned(jobs, "daemon_thread")
        assert returned(jobs, "zombie") == returned(jobs, "zombie")

    def test_after_a_process_was_left_running_which_is_killed(self, jobs: Guarded) -> None:
        first, left = returned(jobs, "process")
        assert not lives(left)
        assert not lives(first)
        assert returned(jobs, "process")[0] != first
        remarks = jobs.run(jobs.job("process")).remarks
        assert remarks == {"left_running": "what it left running was killed: sleep"}
        assert jobs.run(jobs.job("thread")).remarks == {}

    def test_when_it_can_no_longer_be_heard(self, jobs: Guarded) -> None:
        assert jobs.run(jobs.job("close_all")).outcome == Exited(70)
        assert jobs.run(jobs.job("close_all")).outcome == Exited(70)

    @pytest.mark.parametrize(
        "text",
        [
            "sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='utf-8')\ndef f(): print('printed')",
            "raw = sys.stdout.detach()\ndef f(): os.write(1, b'printed\\n')",
            "def f():\n print('printed')\n sys.stdout.detach()",
            "def f():\n print('printed')\n sys.stderr.close()",
        ],
    )
    def test_when_a_job_has_wrapped_or_closed_its_streams(self, jobs: Guarded, text: str) -> None:
        jobs.module(f"import io, os, sys\n{text}\n", "wraps")
        for _ in range(3):
            spec = jobs.job("wraps:f")
            assert jobs.run(spec).outcome == Returned()
            assert out(spec) == b"printed\n"

    def test_when_another_file_is_where_its_answers_go(self, jobs: Guarded) -> None:
        jobs.module(
            "import os\n"
            "def f():\n"
            "    os.closerange(3, 64)\n"
            "    file = open('data.txt', 'w+')\n"
            "    file.write('mine')\n",
            "closes",
        )
        for _ in range(2):
            spec = jobs.job("closes:f")
            assert jobs.run(spec).outcome == Exited(70)
            assert "the job closed the descriptor that its result goes to" in err(spec)
            assert (jobs.dir / "data.txt").read_text() == "mine"

    def test_idle_children_are_not_kept_without_bound(self, jobs: Guarded) -> None:
        for n in range(12):
            returned(jobs, "pid", definition=f"d{n}")
        eventually(lambda: len(children(jobs)) <= 4)
        newest = returned(jobs, "pid", definition="d11")
        assert newest in children(jobs)


class TestForkedCopies:
    def test_what_a_copy_returns_is_nobodys_result(self, jobs: Guarded) -> None:
        assert returned(jobs, "copy", {"path": ""}) == "from the original"
        assert returned(jobs, "copy_that_exits") == "from the original"
        assert returned(jobs, "copy", {"path": ""}) == "from the original"

    def test_an_answer_with_another_pid_counts_for_nothing(self, jobs: Guarded) -> None:
        assert returned(jobs, "forge") == "true"
        assert returned(jobs, "forge") == "true"


class TestCurrentRun:
    ENV = {
        "HUEYCTL_RUN_ID": "an-id",
        "HUEYCTL_JOB": "fetch",
        "HUEYCTL_ATTEMPT": "2",
        "HUEYCTL_QUEUE": "slow",
        "HUEYCTL_FILE": "/x/jobs.toml",
        "HUEYCTL_TRIGGER": "schedule",
        "HUEYCTL_SCHEDULE": "nightly",
        "HUEYCTL_SCHEDULED_AT": "2026-03-29T01:00:00Z",
    }
    TEXT = """
from hueyctl import current_run
def f():
    run = current_run()
    run.progress(40, 100, "resizing\\nimages")
    at = run.scheduled_at and run.scheduled_at.isoformat()
    found = [run.id, run.job, run.attempt, run.queue, run.file, run.trigger, run.schedule, at]
    return found, open(run.progress_path).read()
"""

    @pytest.mark.parametrize("interpreter", [sys.executable, getattr(sys, "_base_executable", sys.executable)])
    def test_a_job_can_ask_which_run_it_is_also_where_hueyctl_is_not_installed(
        self, guarded: Guarded, interpreter: str
    ) -> None:
        guarded.module(self.TEXT, "asking")
        env = {"PATH": os.environ["PATH"]}
        progress = guarded.dir / "progress" / "asking.2"
        run_env = self.ENV | {"HUEYCTL_PROGRESS": str(progress)}
        found, written = returned(guarded, "asking:f", env=env, run_env=run_env, interpreter=interpreter)
        assert found == [
            "an-id",
            "fetch",
            2,
            "slow",
            "/x/jobs.toml",
            "schedule",
            "nightly",
            "2026-03-29T01:00:00+00:00",
        ]
        assert written == "40/100 resizing images\n"
        assert os.listdir(progress.parent) == ["asking.2"]


@pytest.mark.parametrize(
    "noise", ['b"\\xff"', '\'{"token": "\\xff"}\'.encode("latin-1")', 'b\'{"a":\' + b"[" * 100_000']
)
def test_what_a_job_writes_where_answers_go_harms_nobody(guarded: Guarded, noise: str) -> None:
    text = f"def f():\n    import os\n    noise = {noise}\n    os.write(3, len(noise).to_bytes(4, 'big') + noise)\n"
    guarded.module(text, "noisy")
    beside = guarded.begin(guarded.command("sleep", "0.3"))
    assert guarded.run(guarded.job("noisy:f")).outcome == Returned()
    assert beside.end().outcome == Exited(0)


def test_an_answer_larger_than_any_can_be_ends_its_sender_and_not_the_guard(guarded: Guarded) -> None:
    guarded.module(
        "import os\ndef f():\n    os.write(3, (2**31).to_bytes(4, 'big'))\n    while True: os.write(3, bytes(65536))\n",
        "hoarding",
    )
    before = resident_kib(guarded.guard.pid)
    assert isinstance(guarded.run(guarded.job("hoarding:f", timeout=60.0)).outcome, Raised | Exited)
    assert resident_kib(guarded.guard.pid) - before < 4096
    assert guarded.run(guarded.command("true")).outcome == Exited(0)


def test_what_goes_on_where_the_answers_of_a_dead_child_went_holds_up_nobody(guarded: Guarded) -> None:
    guarded.module(
        "import os\n"
        "def f():\n"
        "    fd = os.dup(3)\n"
        "    for _ in range(4):\n"
        "        if not os.fork():\n"
        "            os.setsid()\n"
        "            while True: os.write(fd, b'\\0\\0\\0\\1x' * 10_000)\n"
        "    os._exit(3)\n",
        "flooding",
    )
    beside = guarded.begin(guarded.command("sleep", "300", timeout=0.5, kill_after=0.5))
    assert guarded.run(guarded.job("flooding:f")).outcome == Exited(3)
    assert beside.end().outcome == TimedOut(0.5)


@pytest.mark.parametrize("limit", range(24, 30))
def test_a_guard_that_runs_out_of_descriptors_starts_less_and_lives(tmp_path: Path, limit: int) -> None:
    """Each job holds a socket, two pipes and two files: which of them is refused depends on the limit."""
    guarded = Guarded(tmp_path, prefix=("bash", "-c", f'ulimit -n {limit}; exec "$@"', "_"))
    text = "def f(): import sys, time; print('out', flush=True); print('up', file=sys.stderr); time.sleep(300)\n"
    guarded.module(text.replace(": import", ":\n    import").replace("; ", "\n    "), "many")
    under = []
    while not any(each.over for each in under):
        assert len(under) < limit
        under.append(guarded.begin(guarded.job("many:f")))
        eventually(lambda: under[-1].over or err(under[-1].spec) == "up\n" or not guarded.guard.alive)
    assert guarded.guard.alive
    assert isinstance(under[-1].end().outcome, NotStarted)
    guarded.guard.close(10)


def children(guarded: Guarded) -> list[int]:
    return [each.pid for each in kin.below([guarded.guard.pid]) if each.state != "Z"]


def test_the_child_needs_nothing_but_the_standard_library_of_python_3_8() -> None:
    """Its syntax is read as 3.8's, and it imports only what every Python has."""
    import ast

    for name in ("process/child.py", "current.py"):
        tree = ast.parse((Path(kin.__file__).parents[1] / name).read_text(), feature_version=(3, 8))
        imported = {
            (node.names[0].name if isinstance(node, ast.Import) else node.module or "").split(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
        }
        assert imported - sys.stdlib_module_names - {"__future__"} == set()


def test_a_variable_that_a_job_has_unset_below_python_is_there_for_the_next(guarded: Guarded) -> None:
    guarded.module(
        "import os, subprocess\n"
        "def look(unset):\n"
        "    if unset: os.unsetenv('HUEYCTL_RUN_ID')\n"
        "    else: return subprocess.run(['printenv', 'HUEYCTL_RUN_ID'], capture_output=True, text=True).stdout.strip()"
    )
    same = {"run_env": {"HUEYCTL_RUN_ID": "same"}}
    assert guarded.run(guarded.job("look", {"unset": True}, **same)).outcome == Returned()
    assert guarded.run(guarded.job("look", {"unset": False}, **same)).outcome == Returned('"same"')
