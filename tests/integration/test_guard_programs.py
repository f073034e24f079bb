"""Programs under the guard: how they start, how they end, and what nobody may see of them."""

from __future__ import annotations

import os
import signal
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from guarded import Guarded, err, eventually, lives, out, pid_in, resident_kib

from hueyctl.model.outcome import Exited, NotStarted, Signaled, Stopped, TimedOut
from hueyctl.process import kin
from hueyctl.process.output import OutputReader


def test_a_program_ends_with_its_own_code_and_what_it_printed(guarded: Guarded) -> None:
    spec = guarded.script("echo out; echo err >&2; exit 7")
    ended = guarded.run(spec)
    assert ended.outcome == Exited(7)
    assert (out(spec), err(spec)) == (b"out\n", "err\n")
    assert (ended.stdout_bytes, ended.stderr_bytes) == (4, 4)


def test_output_is_for_its_owner_alone(guarded: Guarded) -> None:
    spec = guarded.script("echo x")
    guarded.run(spec)
    assert stat.S_IMODE(os.stat(spec.stdout).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(Path(spec.stdout).parent).st_mode) == 0o700


def test_what_prints_nothing_leaves_nothing(guarded: Guarded) -> None:
    spec = guarded.command("true")
    assert guarded.run(spec).outcome == Exited(0)
    assert not Path(spec.stdout).parent.exists()


def test_progress_can_be_written_at_once_and_is_gone_at_the_end(guarded: Guarded) -> None:
    progress = guarded.dir / "progress" / "run.1"
    given = {"progress": str(progress), "run_env": {"HUEYCTL_PROGRESS": str(progress)}}
    spec = guarded.script('echo 40/100 > "$HUEYCTL_PROGRESS"; cat "$HUEYCTL_PROGRESS"', **given)
    assert guarded.run(spec).outcome == Exited(0)
    assert out(spec) == b"40/100\n"
    assert not progress.exists()


def test_a_program_gets_its_folder_and_its_variables_and_no_terminal(guarded: Guarded) -> None:
    folder = guarded.dir / "köln"
    folder.mkdir()
    spec = guarded.script(
        'pwd; echo "$A$B"; read -r line || echo "no input"; : 2>/dev/null </dev/tty || echo "no terminal"',
        dir=str(folder),
        env={"PATH": os.environ["PATH"], "A": "base", "B": "base"},
        run_env={"B": "run"},
    )
    guarded.run(spec)
    assert out(spec).decode().split("\n")[:4] == [str(folder), "baserun", "no input", "no terminal"]


def test_input_comes_from_the_file_named(guarded: Guarded) -> None:
    (guarded.dir / "input").write_bytes(b"\0\xff data")
    spec = guarded.command("cat", stdin=str(guarded.dir / "input"))
    assert guarded.run(spec).outcome == Exited(0)
    assert out(spec) == b"\0\xff data"


def test_bytes_that_are_no_utf8_reach_a_program_as_they_are(guarded: Guarded) -> None:
    odd = os.fsdecode(b"\xff\xfe")
    spec = guarded.command("printenv", "ODD", env={"PATH": os.environ["PATH"], "ODD": odd})
    guarded.run(spec)
    assert out(spec) == b"\xff\xfe\n"
    spec = guarded.command("printf", "%s", odd)
    guarded.run(spec)
    assert out(spec) == b"\xff\xfe"


def test_a_program_finds_no_descriptor_but_its_three(guarded: Guarded) -> None:
    spec = guarded.program("import os; print(sorted(map(int, os.listdir('/proc/self/fd')))[:-1])")
    guarded.run(spec)
    assert out(spec) == b"[0, 1, 2]\n"


def test_signals_ignored_by_the_worker_are_not_ignored_by_its_children(tmp_path: Path) -> None:
    ignoring = ("/bin/sh", "-c", "trap '' TERM HUP INT USR1 PIPE; exec \"$@\"", "sh")
    guarded = Guarded(tmp_path, prefix=ignoring)
    spec = guarded.command("cat", "/proc/self/status")
    guarded.run(spec)
    # The two above 31 are the C library's own, which it handles by itself.
    masks = [
        int(line.split()[1], 16) & 0x7FFFFFFF for line in out(spec).splitlines() if line[:6] in (b"SigIgn", b"SigBlk")
    ]
    assert masks == [0, 0]
    guarded.module("def status(): return open('/proc/self/status').read()")
    status = guarded.run(guarded.job("status")).outcome.result
    # Python itself ignores PIPE and XFSZ; TERM, HUP and USR1 have their defaults again.
    ignored = int(next(line for line in status.split("\\n") if line.startswith("SigIgn")).split("\\t")[1], 16)
    assert ignored & 0x7FFFFFFF == 1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)
    guarded.guard.close(10)


class TestWhatCannotStart:
    """Each is an outcome with a shell's code, and a reason that names the program and not its arguments."""

    def refused(self, guarded: Guarded, *argv: str, **given: object) -> NotStarted:
        outcome = guarded.run(guarded.command(*argv, **given)).outcome
        assert isinstance(outcome, NotStarted)
        assert "s3cret" not in outcome.reason
        assert guarded.run(guarded.command("true")).outcome == Exited(0)
        return outcome

    @pytest.mark.parametrize("name", ["no-such-program", "./no-such-program", "/no/such/program"])
    def test_a_program_that_does_not_exist(self, guarded: Guarded, name: str) -> None:
        assert self.refused(guarded, name, "s3cret") == NotStarted(127, f"{name}: no such program")

    def test_a_command_that_is_empty(self, guarded: Guarded) -> None:
        assert self.refused(guarded).code == 127
        assert self.refused(guarded, "").code == 127

    def test_a_file_that_is_not_executable(self, guarded: Guarded) -> None:
        (guarded.dir / "plain").write_text("#!/bin/sh\n")
        assert self.refused(guarded, "./plain", "s3cret") == NotStarted(126, "./plain: not executable")
        found = self.refused(guarded, "plain", "s3cret", env={"PATH": str(guarded.dir)})
        assert found == NotStarted(126, f"plain: not executable: {guarded.dir}/plain")

    def test_a_folder(self, guarded: Guarded) -> None:
        assert self.refused(guarded, "/tmp", "s3cret") == NotStarted(126, "/tmp: is a folder")

    def test_a_script_whose_interpreter_does_not_exist(self, guarded: Guarded) -> None:
        (guarded.dir / "script").write_text("#!/no/such/shell\n")
        (guarded.dir / "script").chmod(0o700)
        found = self.refused(guarded, "./script", "s3cret")
        assert found == NotStarted(126, "./script: the interpreter that its first line names does not exist")

    def test_a_file_that_is_no_program(self, guarded: Guarded) -> None:
        (guarded.dir / "text").write_text("just text\n")
        (guarded.dir / "text").chmod(0o700)
        found = self.refused(guarded, "./text", "s3cret")
        assert found.code == 126
        assert "#! line" in found.reason

    def test_arguments_that_are_too_long(self, guarded: Guarded) -> None:
        found = self.refused(guarded, "true", "s3cret" * 1_000_000)
        assert found == NotStarted(126, "true: its arguments and variables are too long for the system")

    def test_arguments_and_variables_that_cannot_be_passed(self, guarded: Guarded) -> None:
        assert self.refused(guarded, "true", "s3cret\0").code == 126
        assert self.refused(guarded, "true", run_env={"A": "s3cret\0"}).code == 126
        assert self.refused(guarded, "true", "s3cret\ud800").code == 126

    def test_a_folder_that_is_not_there(self, guarded: Guarded) -> None:
        found = self.refused(guarded, "true", dir="/no/such/folder")
        assert found == NotStarted(126, "its folder can't be entered: /no/such/folder: No such file or directory")

    def test_input_that_is_not_there(self, guarded: Guarded) -> None:
        assert self.refused(guarded, "true", stdin="/no/such/file").code == 126

    def test_an_interpreter_that_is_not_there(self, guarded: Guarded) -> None:
        outcome = guarded.run(guarded.job("os:getpid", interpreter="/no/such/python")).outcome
        assert outcome == NotStarted(127, "/no/such/python: no such program")


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL, signal.SIGTERM])
def test_a_signal_that_hueyctl_did_not_send_is_the_cause(guarded: Guarded, number: signal.Signals) -> None:
    ended = guarded.run(guarded.script(f"ulimit -c 0; kill -{int(number)} $$"))
    assert ended.outcome == Signaled(int(number), out_of_memory=False)


def test_a_timeout_ends_it_by_term_first(guarded: Guarded) -> None:
    spec = guarded.script("trap 'echo bye; exit 3' TERM; echo up; sleep 100 & wait", timeout=0.3)
    assert guarded.run(spec).outcome == TimedOut(0.3)
    assert out(spec) == b"up\nbye\n"


def test_what_ignores_term_is_killed(guarded: Guarded) -> None:
    spec = guarded.script("trap '' TERM; echo up; while :; do sleep 0.05; done", timeout=0.2, kill_after=0.2)
    assert guarded.run(spec).outcome == TimedOut(0.2)
    assert out(spec) == b"up\n"


def test_a_program_that_leaves_its_group_is_stopped_all_the_same(guarded: Guarded) -> None:
    leave = "import os, time; os.setpgid(0, os.getpgid(os.getppid())); print('out', flush=True); time.sleep(300)"
    spec = guarded.program(leave, timeout=0.5)
    assert guarded.run(spec).outcome == TimedOut(0.5)
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    assert guarded.run(guarded.program(ignore + leave, timeout=0.5, kill_after=0.2)).outcome == TimedOut(0.5)


def test_a_program_hears_a_stop_once(guarded: Guarded) -> None:
    """Many take a second one for "at once"."""
    count = (
        "import signal, time\n"
        "heard = []\n"
        "signal.signal(signal.SIGTERM, lambda *_: heard.append(1))\n"
        "print('up', flush=True)\n"
        "while not heard: time.sleep(0.01)\n"
        "time.sleep(0.3)\n"
        "print(len(heard))\n"
    )
    under = guarded.begin(guarded.program(count))
    eventually(lambda: under.printed() == b"up\n")
    guarded.guard.stop(under.spec.token, "revoked")
    assert under.end().outcome == Stopped("revoked")
    assert under.printed() == b"up\n1\n"


def test_a_fifo_in_place_of_its_output_holds_up_nobody(guarded: Guarded) -> None:
    spec = guarded.script("head -c 300000 /dev/zero; exit 4", timeout=20.0)
    Path(spec.stdout).parent.mkdir()
    os.mkfifo(spec.stdout)
    ended = guarded.run(spec)
    assert (ended.outcome, ended.stdout_bytes) == (Exited(4), 300_000)
    with pytest.raises(OSError, match="not a file"):
        OutputReader(Path(spec.stdout)).read()


def test_a_stopped_program_hears_its_end_too(guarded: Guarded) -> None:
    spec = guarded.script("trap 'echo bye; exit' TERM; kill -STOP $$; sleep 100", timeout=0.2, kill_after=30)
    assert guarded.run(spec).outcome == TimedOut(0.2)
    assert out(spec) == b"bye\n"


@pytest.mark.parametrize("reason", ["revoked", "interrupted", "stale"])
def test_a_stop_is_the_outcome_even_where_it_exits_by_itself(guarded: Guarded, reason: str) -> None:
    under = guarded.begin(guarded.script("trap 'exit 0' TERM; echo up; sleep 100 & wait"))
    eventually(lambda: under.printed() == b"up\n")
    assert guarded.guard.stop(under.spec.token, reason)
    assert under.end().outcome == Stopped(reason)
    assert not guarded.guard.stop(under.spec.token, reason)


def test_a_stop_right_behind_the_start_is_heard(guarded: Guarded) -> None:
    for _ in range(20):
        under = guarded.begin(guarded.command("sleep", "100"))
        eventually(lambda under=under: guarded.guard.stop(under.spec.token, "revoked"))
        assert under.end().outcome == Stopped("revoked")


def test_what_ended_by_itself_before_its_timeout_is_not_timed_out(guarded: Guarded) -> None:
    assert guarded.run(guarded.command("true", timeout=5.0)).outcome == Exited(0)


def test_what_ended_before_its_timeout_is_not_timed_out_by_a_guard_that_was_held_up(guarded: Guarded) -> None:
    under = guarded.begin(guarded.script("echo $$ > pid; while [ ! -e end ]; do sleep 0.01; done", timeout=1.0))
    pid = pid_in(guarded.dir / "pid")
    began = time.monotonic()
    os.kill(guarded.guard.pid, signal.SIGSTOP)
    (guarded.dir / "end").touch()
    eventually(lambda: not lives(pid))
    eventually(lambda: time.monotonic() > began + 1.0)
    os.kill(guarded.guard.pid, signal.SIGCONT)
    assert under.end().outcome == Exited(0)


def test_a_program_may_close_its_output_and_go_on(guarded: Guarded) -> None:
    spec = guarded.script("echo x; exec >&- 2>&-; sleep 0.2; exit 5")
    assert guarded.run(spec).outcome == Exited(5)
    assert out(spec) == b"x\n"


def test_what_fills_its_pipes_at_once_is_read_before_it_ends(guarded: Guarded) -> None:
    """Nobody looks at what a program prints in its first milliseconds."""
    spec = guarded.program("import os; os.write(1, b'x' * 3_000_000); os.write(2, b'y' * 3_000_000)")
    ended = guarded.run(spec)
    assert (ended.outcome, ended.stdout_bytes, ended.stderr_bytes) == (Exited(0), 3_000_000, 3_000_000)


def test_what_is_printed_can_be_read_while_it_runs(guarded: Guarded) -> None:
    under = guarded.begin(guarded.script("for n in 1 2; do echo $n; while [ ! -e $n ]; do sleep 0.01; done; done"))
    eventually(lambda: under.printed() == b"1\n")
    (guarded.dir / "1").touch()
    eventually(lambda: under.printed() == b"1\n2\n")
    (guarded.dir / "2").touch()
    assert under.end().outcome == Exited(0)


def test_a_program_that_has_closed_its_output_keeps_nobody_awake(guarded: Guarded) -> None:
    under = guarded.begin(
        guarded.program("import os, time; os.close(1); os.write(2, b'x'); os.close(2); time.sleep(300)")
    )
    eventually(lambda: err(under.spec) == "x")
    before = cpu_s(guarded.guard.pid)
    while_another_works(guarded)
    assert cpu_s(guarded.guard.pid) - before < 0.1
    guarded.guard.stop(under.spec.token, "revoked")
    assert under.end().outcome == Stopped("revoked")


def test_a_full_disk_costs_the_output_and_not_the_attempt(guarded: Guarded) -> None:
    spec = guarded.script("head -c 300000 /dev/zero; echo err >&2; exit 4")
    Path(spec.stdout).parent.mkdir()
    Path(spec.stdout).symlink_to("/dev/full")
    ended = guarded.run(spec)
    assert ended.outcome == Exited(4)
    assert ended.stdout_bytes == 300_000
    assert ended.remarks == {
        "output_error": "not all of its output could be kept (stdout: Too many levels of symbolic links)"
    }
    assert err(spec) == "err\n"


def test_endless_output_is_bounded_on_the_disk_and_in_memory(guarded: Guarded) -> None:
    size, limit = 50_000_000, 100_000
    spec = guarded.script(f"head -c {size} /dev/zero | tr '\\0' x", output_max=limit)
    before = resident_kib(guarded.guard.pid)
    ended = guarded.run(spec)
    assert (ended.outcome, ended.stdout_bytes) == (Exited(0), size)
    marker = b"\n[hueyctl: %d bytes cut]\n" % (size - limit)
    assert out(spec) == b"x" * (limit // 2) + marker + b"x" * (limit // 2)
    assert os.listdir(Path(spec.stdout).parent) == ["1.out"]
    assert resident_kib(guarded.guard.pid) - before < 4096


def test_attempts_side_by_side_get_their_own_output(guarded: Guarded) -> None:
    specs = [guarded.script(f"echo {n}; exit {n % 5}") for n in range(100)]
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda spec: guarded.run(spec).outcome, specs))
    assert outcomes == [Exited(n % 5) for n in range(100)]
    assert [out(spec) for spec in specs] == [b"%d\n" % n for n in range(100)]


def test_a_guard_leaks_no_descriptor(guarded: Guarded) -> None:
    guarded.module("def f(): print('x')")
    every = [guarded.command("echo"), guarded.command("no-such-program"), guarded.job("f"), guarded.job("f:nope")]
    for spec in every:
        guarded.run(spec)
    before = len(os.listdir(f"/proc/{guarded.guard.pid}/fd"))
    for _ in range(5):
        for spec in (guarded.command("echo"), guarded.command("nope"), guarded.job("f"), guarded.job("f:nope")):
            guarded.run(spec)
    eventually(lambda: len(os.listdir(f"/proc/{guarded.guard.pid}/fd")) <= before)


def test_an_idle_guard_sleeps(guarded: Guarded) -> None:
    guarded.run(guarded.command("true"))
    before = switches(guarded.guard.pid)
    while_another_works(guarded)
    assert switches(guarded.guard.pid) - before <= 1


def while_another_works(guarded: Guarded) -> None:
    """Something that takes half a second without this guard: another one starts, works and ends."""
    (guarded.dir / "other").mkdir()
    other = Guarded(guarded.dir / "other")
    other.run(other.command("sleep", "0.5"))
    other.guard.close(10)


def test_the_kernels_count_of_memory_kills_can_be_read() -> None:
    kills = kin.oom_kills()
    assert kills is None or kills >= 0


def switches(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("voluntary")).split()[1])


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_process_that_has_altered_its_mark_harms_no_guard(guarded: Guarded) -> None:
    """What is in a process's environment is the job's to make."""
    begun = guarded.begin(guarded.script("echo up; exec sleep 5"))
    eventually(begun.printed)
    odd = guarded.script("HUEYCTL_KIN=$HUEYCTL_KIN.old setsid sleep 300 & echo $!")
    assert guarded.run(odd).outcome == Exited(0)
    assert guarded.guard.stop(begun.spec.token, "revoked")
    assert begun.end().outcome == Stopped("revoked")
    eventually(lambda: not lives(int(out(odd))))
    assert guarded.run(guarded.command("true")).outcome == Exited(0)
