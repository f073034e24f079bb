"""What attempts leave behind, and what is left when workers and guards die: nothing."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from guarded import Guarded, eventually, lives, out, pid_in

from hueyctl.model.outcome import Exited, Lost, Stopped, TimedOut
from hueyctl.process import client, kin
from hueyctl.process.client import Guard, GuardFailed, kill_what_outlived

ROOT = Path(__file__).resolve().parents[2]

# Forks twice with a session in between, as daemons do, closes what it got, and writes its pid.
DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        if {scrub}:
            os.execve(sys.executable, [sys.executable, "-c",
                "import os, time; open({pid!r}, 'w').write(str(os.getpid()) + chr(10)); time.sleep(300)"], {{}})
        open({pid!r}, "w").write(str(os.getpid()) + chr(10))
        time.sleep(300)
    os._exit(0)
os.wait()
while not os.path.exists({pid!r}) or not os.path.getsize({pid!r}): time.sleep(0.005)
"""

# 20 lines of processes, each of which starts the next and ends, without end.
STORM = """
import os, time
open({pid!r}, "w").write(str(os.getpid()) + chr(10))
for _ in range(20):
    if os.fork() == 0:
        os.setsid()
        while True:
            if os.fork():
                os._exit(0)
time.sleep({stay})
"""


def daemon(guarded: Guarded, name: str, *, scrub: bool = False, then: str = "") -> tuple[str, Path]:
    """The text of a program that leaves a daemon, and where that writes its pid."""
    path = guarded.dir / name
    return DAEMON.format(pid=str(path), scrub=scrub) + then, path


class TestWhatItsLeaderLeaves:
    def test_a_child_that_holds_the_pipe_holds_nothing_up(self, guarded: Guarded) -> None:
        spec = guarded.script("sleep 300 & echo $!; exit 6")
        ended = guarded.run(spec)
        assert ended.outcome == Exited(6)
        assert "left_running" in ended.remarks
        assert not lives(int(out(spec)))

    def test_a_daemon_is_gone_when_its_attempt_is_over(self, guarded: Guarded) -> None:
        text, pid = daemon(guarded, "daemon")
        ended = guarded.run(guarded.program(text))
        assert ended.outcome == Exited(0)
        assert ended.remarks == {"left_running": "what it left running was killed: python"}
        assert not lives(pid_in(pid))

    def test_what_was_killed_is_named_as_far_as_it_was_left_running(self, guarded: Guarded) -> None:
        """What has ended by itself was not, nor what a timeout is to end."""
        up = "until grep -q sleep /proc/$!/comm; do :; done"
        ended = guarded.run(guarded.script(f"sleep 300 & {up}; sleep 301 & {up}; true & wait $!"))
        assert ended.remarks == {"left_running": "what it left running was killed: sleep (2)"}
        gone = "true & pid=$(true & echo $!); while kill -0 $pid; do :; done; wait"
        assert guarded.run(guarded.script(gone)).remarks == {}
        stopped = guarded.run(guarded.script("sleep 300 & sleep 301", timeout=0.3))
        assert (stopped.outcome, stopped.remarks) == (TimedOut(0.3), {})

    def test_of_many_names_five_are_said(self, guarded: Guarded) -> None:
        up = "import sys, time; open('/proc/self/comm', 'w').write(sys.argv[1]); print(1, flush=True); time.sleep(300)"
        text = f'for name in a b c d e f g; do exec 3< <(python3 -Sc "{up}" $name); read -u 3; done'
        ended = guarded.run(guarded.script(text))
        names = ended.remarks["left_running"].removeprefix("what it left running was killed: ").split(", ")
        assert (len(names), names[5]) == (6, "2 more")
        assert set(names[:5]) < set("abcdefg")

    def test_a_daemon_without_any_mark_is_gone_too(self, guarded: Guarded) -> None:
        text, pid = daemon(guarded, "daemon", scrub=True)
        assert guarded.run(guarded.program(text)).outcome == Exited(0)
        assert not lives(pid_in(pid))

    def test_a_daemon_dies_with_its_own_attempt_and_not_with_another(self, guarded: Guarded) -> None:
        text, pid = daemon(guarded, "daemon", then="time.sleep(300)")
        under = guarded.begin(guarded.program(text))
        found = pid_in(pid)
        assert guarded.run(guarded.command("true")).outcome == Exited(0)
        assert guarded.run(guarded.script("sleep 300 & exit 1")).outcome == Exited(1)
        assert lives(found)
        guarded.guard.stop(under.spec.token, "revoked")
        assert under.end().outcome == Stopped("revoked")
        assert not lives(found)

    def test_one_without_any_mark_lives_no_longer_than_the_last_it_may_belong_to(self, guarded: Guarded) -> None:
        other = guarded.begin(guarded.command("sleep", "300"))
        text, pid = daemon(guarded, "daemon", scrub=True)
        assert guarded.run(guarded.program(text)).outcome == Exited(0)
        eventually(lambda: guarded.guard.stop(other.spec.token, "revoked"))
        assert other.end().outcome == Stopped("revoked")
        assert not lives(pid_in(pid))

    def test_a_timeout_takes_a_daemon_along(self, guarded: Guarded) -> None:
        text, pid = daemon(guarded, "daemon", then="time.sleep(300)")
        assert guarded.run(guarded.program(text, timeout=1.0)).outcome == TimedOut(1.0)
        assert not lives(pid_in(pid))

    def test_a_group_of_its_own_does_not_save_a_process_that_ignores_term(self, guarded: Guarded) -> None:
        spec = guarded.script(
            "setsid bash -c 'trap \"\" TERM; echo $BASHPID; while :; do sleep 0.05; done' & wait",
            timeout=0.5,
            kill_after=0.1,
        )
        assert guarded.run(spec).outcome == TimedOut(0.5)
        assert not lives(int(out(spec)))

    def test_a_fork_storm_is_over_with_its_attempt(self, guarded: Guarded) -> None:
        path = guarded.dir / "storm"
        assert guarded.run(guarded.program(STORM.format(pid=str(path), stay=0))).outcome == Exited(0)
        assert [each for each in kin.below([guarded.guard.pid]) if each.state != "Z"] == []

    def test_a_fork_storm_can_be_stopped(self, guarded: Guarded) -> None:
        path = guarded.dir / "storm"
        under = guarded.begin(guarded.program(STORM.format(pid=str(path), stay=300), kill_after=0.1))
        pid_in(path)
        guarded.guard.stop(under.spec.token, "revoked")
        assert under.end().outcome == Stopped("revoked")
        assert [each for each in kin.below([guarded.guard.pid]) if each.state != "Z"] == []

    def test_others_go_on_meanwhile(self, guarded: Guarded) -> None:
        under = guarded.begin(guarded.script("for i in 1 2 3 4 5 6 7 8 9; do sleep 0.05; done; echo done"))
        for _ in range(10):
            guarded.run(guarded.script("sleep 300 & exit"))
        assert under.end().outcome == Exited(0)
        assert under.printed() == b"done\n"


# -- workers and guards that die --------------------------------------------------------------------------------------

WORKER = """
import sys, threading
sys.path[:0] = [{tests!r}, {root!r}]
from pathlib import Path
from guarded import Guarded
from hueyctl.process.client import become_subreaper, kill_descendants

become_subreaper()
guarded = Guarded(Path({dir!r}), lease_s={lease_s})
guarded.guard.on_death = kill_descendants
specs = eval({specs!r})
answers = []
for spec in specs:
    threading.Thread(target=lambda spec=spec: answers.append(guarded.run(spec)), daemon=True).start()
print(guarded.guard.pid, flush=True)
sys.stdin.read(1)
while len(answers) < len(specs): pass
print([answer.outcome for answer in answers], flush=True)
"""


class Worker:
    """A worker process that has started attempts: a daemon each, and a leader that ignores TERM."""

    def __init__(self, dir: Path, lease_s: float = 3600.0) -> None:
        self.lock = dir / "guard.lock"
        self.pids = [dir / "daemon", dir / "stubborn"]
        text = DAEMON.format(pid=str(self.pids[0]), scrub=True) + "time.sleep(300)"
        stubborn = f"trap '' TERM INT HUP; echo $$ > {self.pids[1]}; while :; do sleep 0.05; done"
        specs = f"[guarded.program({text!r}), guarded.script({stubborn!r})]"
        tests = str(Path(__file__).parent)
        code = WORKER.format(tests=tests, root=str(ROOT), dir=str(dir), lease_s=lease_s, specs=specs)
        self.process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.guard_pid = int(self.process.stdout.readline())
        self.started = [pid_in(path) for path in self.pids]

    def outcomes(self) -> str:
        """Have it wait for its attempts and say how they ended."""
        said, _ = self.process.communicate(b"x", timeout=20)
        return said.decode()


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Starts workers that are killed at the end."""
    made: list[Worker] = []

    def make(**given: float) -> Worker:
        made.append(Worker(tmp_path, **given))
        return made[-1]

    yield make
    for each in made:
        each.process.kill()
        each.process.communicate()


def is_free(lock: Path) -> bool:
    """Could another take this lock?"""
    try:
        fd = os.open(lock, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def test_a_killed_worker_leaves_nothing_and_its_lock_is_free_only_then(worker: Callable[..., Worker]) -> None:
    dead = worker()
    assert not is_free(dead.lock)
    dead.process.kill()
    while not is_free(dead.lock):
        pass
    assert [pid for pid in dead.started if lives(pid)] == []
    eventually(lambda: not lives(dead.guard_pid))
    assert not dead.lock.exists()


def test_a_worker_that_is_silent_for_its_lease_loses_all_it_runs(worker: Callable[..., Worker]) -> None:
    silent = worker(lease_s=3.0)
    silent.process.send_signal(signal.SIGSTOP)
    while not is_free(silent.lock):
        pass
    assert [pid for pid in silent.started if lives(pid)] == []
    silent.process.send_signal(signal.SIGCONT)
    lost = Lost("its worker gave no sign of life for 2 s")
    assert silent.outcomes() == f"[{lost}, {lost}]\n"


def test_a_killed_guard_is_cleared_up_after_before_its_attempts_are_lost(worker: Callable[..., Worker]) -> None:
    bereft = worker()
    os.kill(bereft.guard_pid, signal.SIGKILL)
    assert bereft.outcomes() == f"[{Lost('the guard died')}, {Lost('the guard died')}]\n"
    assert [pid for pid in bereft.started if lives(pid)] == []


def test_a_tick_keeps_everything_alive(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path, lease_s=0.6)
    under = guarded.begin(guarded.command("sleep", "1.2"))
    while not under.over:
        guarded.guard.tick()
    assert under.end().outcome == Exited(0)
    assert guarded.guard.alive
    guarded.guard.close(10)


def test_a_guard_that_hangs_is_killed_and_what_it_ran_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its attempts would go on for ever, with no timeout: only it can stop them, and say that they are over."""
    monkeypatch.setattr(client, "HUNG_AFTER_S", 0.5)
    guarded = Guarded(tmp_path)
    deaths: list[bool] = []
    guarded.guard.on_death = lambda: deaths.append(guarded.guard.hung)
    under = guarded.begin(guarded.script("echo up; exec sleep 300", timeout=0.2))
    eventually(lambda: under.printed() == b"up\n")
    began = time.monotonic()
    os.kill(guarded.guard.pid, signal.SIGSTOP)
    for _ in range(client.UNANSWERED_MAX):
        guarded.guard.tick()
    assert guarded.guard.alive, "time has to pass, too: a disk may hold it up"
    while not deaths:
        guarded.guard.tick()
    assert time.monotonic() - began >= 0.5
    assert deaths == [True]
    assert under.end().outcome == Lost("the guard answered no more, and was killed")
    assert kill_what_outlived(guarded.lock)
    guarded.guard.close(1)


def test_a_guard_that_answers_is_not_taken_for_hung(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor one that was not asked: after a freeze of the whole machine, time has passed."""
    monkeypatch.setattr(client, "HUNG_AFTER_S", 0.0)
    guarded = Guarded(tmp_path)
    guard = guarded.guard
    os.kill(guard.pid, signal.SIGSTOP)
    for _ in range(client.UNANSWERED_MAX - 1):
        guard.tick()
    os.kill(guard.pid, signal.SIGCONT)
    for _ in range(3 * client.UNANSWERED_MAX):
        eventually(lambda: not guard._asked_at)
        guard.tick()
    assert guard.alive
    assert guarded.run(guarded.command("true")).outcome == Exited(0)
    assert not guard.hung
    guard.close(10)


def test_a_guard_that_is_gone_answers_lost_at_once_and_says_so_once(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    deaths: list[int] = []
    guarded.guard.on_death = lambda: deaths.append(1)
    os.kill(guarded.guard.pid, signal.SIGKILL)
    eventually(lambda: deaths)
    assert not guarded.guard.alive
    assert guarded.run(guarded.command("true")).outcome == Lost("the guard died")
    assert not guarded.guard.stop("nobody", "revoked")
    guarded.guard.tick()
    guarded.guard.close(1)
    assert deaths == [1]


def test_what_is_asked_of_a_dead_guard_is_made_by_its_successor(tmp_path: Path) -> None:
    """While another guard starts, a worker goes on claiming: each of those runs was lost once, and soon for good."""
    first, second = Guarded(tmp_path / "first"), Guarded(tmp_path / "second")
    asked_for, come = threading.Event(), threading.Event()

    def succeed() -> Guard:
        asked_for.set()
        assert come.wait(10)
        return second.guard

    first.guard.on_death = succeed
    under_way = first.begin(first.script("echo up; exec sleep 300"))
    eventually(lambda: under_way.printed() == b"up\n")  # asked any later, it would be the successor's
    os.kill(first.guard.pid, signal.SIGKILL)
    assert asked_for.wait(10)
    asked = [first.begin(first.command("true")) for _ in range(3)]
    assert not any(each.over for each in [under_way, *asked])
    come.set()
    assert under_way.end().outcome == Lost("the guard died")
    assert [each.end().outcome for each in asked] == [Exited(0)] * 3
    second.guard.close(10)
    first.guard.close(10)


def test_a_guards_last_words_wait_for_its_successor_too(tmp_path: Path) -> None:
    """What was told at once had its next attempt asked of the guard that was about to end."""
    next_one, silent = Guarded(tmp_path / "next"), Guarded(tmp_path / "silent", lease_s=0.9)
    under_way = silent.begin(silent.command("sleep", "300"))
    told_at: list[bool] = []

    def succeed() -> Guard:
        told_at.append(under_way.over)
        return next_one.guard

    silent.guard.on_death = succeed
    assert under_way.end().outcome == Lost("its worker gave no sign of life for 0.6 s")
    assert told_at == [False]
    assert silent.run(silent.command("true")).outcome == Exited(0)
    next_one.guard.close(10)
    silent.guard.close(10)


def test_without_another_guard_attempts_wait_for_the_end_of_their_worker(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    failed = threading.Event()

    def fail() -> None:
        failed.set()
        raise GuardFailed("no memory")

    guarded.guard.on_death = fail
    under_way = guarded.begin(guarded.script("echo up; exec sleep 300"))
    eventually(lambda: under_way.printed() == b"up\n")
    os.kill(guarded.guard.pid, signal.SIGKILL)
    assert under_way.end().outcome == Lost("the guard died")
    assert failed.is_set()
    later = guarded.begin(guarded.command("true"))
    assert not later.ends_within(0.3)
    guarded.guard.close(1)


def test_a_close_interrupts_what_is_under_way_and_frees_the_lock(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    deaths: list[int] = []
    guarded.guard.on_death = lambda: deaths.append(1)
    text, pid = daemon(guarded, "daemon", then="print('up', flush=True); time.sleep(300)")
    under = guarded.begin(guarded.program(text))
    eventually(lambda: under.printed() == b"up\n")
    guarded.guard.close(10)
    assert under.end().outcome == Stopped("interrupted")
    assert not lives(pid_in(pid))
    assert not guarded.lock.exists()
    assert deaths == []


def test_signals_to_the_guard_end_nothing(guarded: Guarded) -> None:
    under = guarded.begin(guarded.script("echo up; sleep 0.3; echo down"))
    eventually(lambda: under.printed() == b"up\n")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGTSTP):
        os.kill(guarded.guard.pid, number)
    assert under.end().outcome == Exited(0)
    assert under.printed() == b"up\ndown\n"


def test_what_outlives_worker_and_guard_killed_at_once_is_found_and_killed(tmp_path: Path) -> None:
    """Nobody is left then who would kill it: whoever rescues its runs does, by the mark and by descent."""
    text = "env -i sleep 300 & echo $! > unmarked; (setsid sleep 300 & echo $! > away); echo $$ > leader; wait"
    specs = f"[guarded.script({text!r})]"
    tests = str(Path(__file__).parent)
    code = WORKER.format(tests=tests, root=str(ROOT), dir=str(tmp_path), lease_s=3600.0, specs=specs)
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        guard = int(process.stdout.readline())
        started = [pid_in(tmp_path / name) for name in ("unmarked", "away", "leader")]
        other = Guarded(tmp_path / "other")
        theirs = other.begin(other.script("echo up; sleep 300"))
        eventually(lambda: theirs.printed() == b"up\n")
        # The worker can't clear up after its guard, nor the guard after its worker: neither runs in between.
        process.send_signal(signal.SIGSTOP)
        os.kill(guard, signal.SIGSTOP)
        os.kill(guard, signal.SIGKILL)
        process.kill()
    eventually(lambda: is_free(tmp_path / "guard.lock"))
    assert all(lives(pid) for pid in started)
    assert kill_what_outlived(tmp_path / "guard.lock")
    assert [pid for pid in started if lives(pid)] == []
    assert not theirs.over
    other.guard.close(10)
