"""The guard: one small single-threaded process per worker, the parent of everything that the worker runs.

Promises:
- Every attempt started gets exactly one `Over`, sent when nothing of it runs any more: its leader has exited, what
  was left of its descendants (those that became daemons too) has been killed, and what it printed is in its files.
- When the worker is gone, or silent for ⅔ of its lease, everything here dies, and only then is the lock free. So
  whoever finds the lock free may start the next attempt of a run.
- Nothing here waits for anything but an event: a full disk, a stopped worker, a flood of output or a job that ignores
  TERM delays no timeout.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import selectors
import signal
import socket
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path

from hueyctl.failpoints import failpoint
from hueyctl.model.outcome import AnyOutcome, Exited, Lost, Signaled, Stopped, TimedOut
from hueyctl.process import kin
from hueyctl.process.channel import Channel, Control
from hueyctl.process.launch import CannotStart, Environment, launch
from hueyctl.process.leader import PIPE_MAX, Attempt, Leader, Pipe, WarmChild
from hueyctl.process.spec import AttemptSpec, Ended, ProcessSpec, PythonSpec
from hueyctl.process.strays import KILL_AGAIN_S, Strays
from hueyctl.process.wire import (
    READ_SIZE,
    Call,
    Join,
    Over,
    Ready,
    Recycle,
    Start,
    Stop,
    Tick,
    decode_answer,
    decode_request,
)

LEASE_SHARE = 2 / 3
RETIRE_S = 5.0  # what a child that is no longer needed has for its exit handlers
WATCH_AFTER_S = 0.02
GIVE_UP_S = 30.0  # a descendant that the kernel can't kill holds up its attempt no longer than this
LAST_WORDS_S = 1.0  # what a worker has, that doesn't read, for hearing how its attempts ended
IDLE_CHILDREN_MIN = 4
# Of an answer, beside the result; and by how much that grows as text within JSON. Who sends more isn't answering.
ANSWER_MAX = 1024 * 1024
ESCAPED_MAX = 4
_CHILD = str(Path(__file__).with_name("child.py"))
_IGNORED = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGTSTP", "SIGTTIN", "SIGTTOU")


def main(sock: socket.socket, *, lock: Path, lease_s: float, on_exit: Callable[[], None]) -> None:
    """Serve one worker until it closes its socket, or its ticks stop for ⅔ of `lease_s`; then, when everything is dead
    and `lock` free, call `on_exit`."""
    kin.become_subreaper()
    kin.set_name("hueyctl-guard")
    # It ends with its worker, and by nothing that is sent to a whole group or session.
    for name in _IGNORED:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    sock = _keep_low_descriptors(sock)
    lock = lock.absolute()  # the current folder changes with every launch
    held = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(held, fcntl.LOCK_EX)
    guard = _Guard(sock, lease_s, kin.family(lock))
    try:
        guard.serve()
    except BaseException as exc:
        guard.last_words = Lost(f"its guard failed: {type(exc).__name__}: {exc}")
        raise
    finally:
        guard.end()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(lock)
        os.close(held)
        on_exit()


def _keep_low_descriptors(sock: socket.socket) -> socket.socket:
    """Keep 0 to 3 taken for good: `launch` puts a leader's descriptors there, so none may be among its sources."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    moved = socket.socket(fileno=fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, 4))
    sock.close()
    for fd in (0, 3):
        if fd != null:
            os.dup2(null, fd, inheritable=False)
    return moved


class _Guard:
    def __init__(self, sock: socket.socket, lease_s: float, family: str) -> None:
        # With its pid: a second guard of the same worker numbers its leaders from 1 again.
        self._family = f"{family}-{os.getpid()}"
        self._selector = selectors.DefaultSelector()
        self._patience = lease_s * LEASE_SHARE
        self._silent_at = self._next_at = time.monotonic() + self._patience
        self._open = True
        self.last_words: AnyOutcome = Stopped("interrupted")  # for what is still under way when it ends
        self._attempts: dict[str, Attempt] = {}
        self._ending: list[Attempt] = []  # those whose outcome is known
        self._leaders: dict[int, Leader] = {}  # by pid: every one that hasn't been reaped
        # Programs that have just started, and when to begin to read what they print. Most end before that, and it is
        # read then: to watch a pipe costs more than to make it.
        self._unwatched: OrderedDict[Leader, float] = OrderedDict()
        self._serials = itertools.count(1)
        self._idle: list[WarmChild] = []  # the longest idle first
        self._busiest = 0
        self._strays = Strays(self._family)
        self._oom_kills, self._oom_read_at = kin.oom_kills(), time.monotonic()
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._wakened, wake = os.pipe()
        os.set_blocking(self._wakened, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, self._note_death)
        self._deaths = False  # somebody may have to be reaped
        self._worker = Control(sock, self._selector, lambda _: self._hear_worker())
        # The worker's, by their channels, and the environment of what each has started last.
        self._threads: dict[Channel, Environment] = {}
        self._selector.register(self._wakened, selectors.EVENT_READ, lambda: os.read(self._wakened, 4096))

    # -- the loop ---------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Take requests until there is nobody, or no reason, left to serve."""
        self._worker.send(Ready())
        while self._open:
            pause = self._next_at - time.monotonic()
            if self._ending or self._strays:
                pause = min(pause, KILL_AGAIN_S)
            events = self._selector.select(max(0.0, pause))
            # Deaths first: who has ended by itself was neither stopped nor timed out.
            if self._deaths:
                self._reap()
            # Then the worker, whose descriptor is lower than any other's: what it starts after a `Recycle`, by another
            # channel, must not come before that.
            for key, _ in sorted(events, key=_descriptor):
                key.data()
            now = time.monotonic()
            if now >= self._next_at:
                self._keep_time(now)
            if self._ending or self._strays:
                self._clear(now)

    def _keep_time(self, now: float) -> None:
        self._reap()  # who has ended by itself wasn't timed out
        while self._unwatched and next(iter(self._unwatched.values())) <= now:
            self._watch(self._unwatched.popitem(last=False)[0])
        for attempt in self._attempts.values():
            if attempt.running and attempt.deadline is not None and now >= attempt.deadline:
                attempt.deadline = None
                self._stop(attempt, TimedOut(attempt.spec.timeout or 0.0))
            if attempt.kill_at is not None and now >= attempt.kill_at:
                attempt.kill_at = None
                self._signal(attempt.leader, signal.SIGKILL)
        for leader in self._leaders.values():
            if leader.kill_at is not None and now >= leader.kill_at:
                leader.kill_at = None
                self._signal(leader, signal.SIGKILL)
        if now >= self._silent_at:
            self.last_words = Lost(f"its worker gave no sign of life for {self._patience:g} s")
            self._open = False
        self._look_ahead()

    def _wake_by(self, at: float) -> None:
        """Keep time at `at`, if not before."""
        self._next_at = min(self._next_at, at)

    def _look_ahead(self) -> None:
        """Find the next instant that matters, of those that still do."""
        self._next_at = self._silent_at
        for at in self._unwatched.values():
            self._wake_by(at)
            break
        for attempt in self._attempts.values():
            for due in (attempt.deadline, attempt.kill_at):
                if due is not None:
                    self._wake_by(due)
        for leader in self._leaders.values():
            if leader.kill_at is not None:
                self._wake_by(leader.kill_at)

    # -- the worker -------------------------------------------------------------------------------------------------

    def _hear_worker(self) -> None:
        for payload in self._worker.receive() or ():
            match decode_request(payload):
                case Join():
                    channel = Channel(self._worker.joined(), self._selector, self._hear_thread)
                    self._threads[channel] = Environment({})
                case Tick():
                    self._silent_at = time.monotonic() + self._patience
                    self._worker.send(Ready())
                case Recycle():
                    self._recycle()
        if self._worker.hung_up:
            self._open = False

    def _hear_thread(self, channel: Channel) -> None:
        for payload in channel.receive() or ():
            match decode_request(payload):
                case Start(spec, env):
                    if env is not None:
                        self._threads[channel] = Environment(env)
                    self._start(spec, channel)
                case Stop(token, reason):
                    self._reap()  # who has ended by itself wasn't stopped
                    if token in self._attempts:
                        self._stop(self._attempts[token], Stopped(reason))
        if channel.hung_up:
            self._desert(channel)

    def _desert(self, channel: Channel) -> None:
        """Kill what came by a channel whose thread is gone: its worker takes it for lost, and it may soon be started
        again. The worker sees that it is over when the channel is closed."""
        deserted = [attempt for attempt in self._attempts.values() if attempt.channel is channel]
        for attempt in deserted:
            attempt.cause = attempt.cause or Stopped("interrupted")
            self._signal(attempt.leader, signal.SIGKILL)
        if not deserted:
            channel.close()
            del self._threads[channel]

    # -- starting ---------------------------------------------------------------------------------------------------

    def _start(self, spec: AttemptSpec, channel: Channel) -> None:
        failpoint("start.before")
        now = time.monotonic()
        if spec.start_by is not None and now >= spec.start_by:
            # The worker was stopped between its claim and now, or this process was: see `AttemptSpec`.
            channel.send(Over(Ended(token=spec.token, outcome=Stopped("stale"), begun=False)))
            return
        if now - self._oom_read_at > 1.0:
            self._oom_kills, self._oom_read_at = kin.oom_kills(), now
        leader: Leader
        try:
            match spec.body:
                case ProcessSpec(argv=argv):
                    leader = self._program(spec, argv, self._threads[channel])
                case PythonSpec() as body:
                    leader = self._child_for(spec, body, self._threads[channel])
        except CannotStart as exc:
            channel.send(Over(Ended(token=spec.token, outcome=exc.outcome)))
            return
        attempt = Attempt(spec, leader, channel, now)
        leader.attempt = attempt
        leader.stdout.file, leader.stderr.file = attempt.stdout, attempt.stderr
        self._attempts[spec.token] = attempt
        if attempt.deadline is not None:
            self._wake_by(attempt.deadline)
        if isinstance(leader, WarmChild):
            self._call(leader, spec)
        failpoint("start.after")

    def _program(self, spec: AttemptSpec, argv: tuple[str, ...], env: Environment) -> Leader:
        if not argv:
            raise CannotStart(127, "its command is empty")
        _make_folder(spec.progress.rpartition("/")[0])
        stdin = self._null
        if spec.stdin is not None:
            try:
                stdin = os.open(spec.stdin, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as exc:
                raise CannotStart(126, f"its input can't be read: {spec.stdin}: {exc.strerror}") from exc
        try:
            leader = Leader(*self._launch(argv, spec.dir, env, spec.run_env, [stdin]))
        finally:
            if stdin != self._null:
                os.close(stdin)
        self._leaders[leader.pid] = leader
        at = self._unwatched[leader] = time.monotonic() + WATCH_AFTER_S
        self._wake_by(at)
        return leader

    def _child_for(self, spec: AttemptSpec, body: PythonSpec, env: Environment) -> WarmChild:
        for child in reversed(self._idle):
            if child.definition == body.definition:
                self._idle.remove(child)
                return child
        try:
            ours, theirs = socket.socketpair()
        except OSError as exc:
            raise CannotStart(126, f"{body.interpreter}: {exc.strerror}") from exc
        with theirs:
            try:
                argv = body.interpreter, _CHILD
                launched = self._launch(argv, spec.dir, env, {}, [self._null, theirs.fileno()])
            except CannotStart:
                ours.close()
                raise
        child = WarmChild(*launched, definition=body.definition)
        largest = ANSWER_MAX + ESCAPED_MAX * body.result_max
        child.channel = Channel(ours, self._selector, lambda _: self._hear(child), largest=largest)
        self._leaders[child.pid] = child
        self._watch(child)
        return child

    def _launch(
        self, argv: tuple[str, ...], dir: str, env: Environment, run_env: dict[str, str], others: list[int]
    ) -> tuple[int, int, int, int]:
        """Start a leader with `others` as its stdin and (a child's) descriptor 3: its pid, its serial, its pipes."""
        serial = next(self._serials)
        mark = f"{env.get(kin.KIN) or ''}/{self._family}.{serial}"
        try:
            stdout, to_stdout = os.pipe()
        except OSError as exc:
            raise CannotStart(126, f"{argv[0]}: {exc.strerror}") from exc
        try:
            stderr, to_stderr = os.pipe()
        except OSError as exc:
            os.close(stdout)
            os.close(to_stdout)
            raise CannotStart(126, f"{argv[0]}: {exc.strerror}") from exc
        try:
            descriptors = [others[0], to_stdout, to_stderr, *others[1:]]
            pid = launch(argv, dir=dir, env=env, more={**run_env, kin.KIN: mark}, descriptors=descriptors)
        except CannotStart:
            os.close(stdout)
            os.close(stderr)
            raise
        finally:
            os.close(to_stdout)
            os.close(to_stderr)
        os.set_blocking(stdout, False)
        os.set_blocking(stderr, False)
        return pid, serial, stdout, stderr

    def _watch(self, leader: Leader) -> None:
        for pipe in (leader.stdout, leader.stderr):
            self._selector.register(pipe.fd, selectors.EVENT_READ, partial(self._pump, pipe))
            pipe.watched = True

    def _call(self, child: WarmChild, spec: AttemptSpec) -> None:
        body = spec.body
        assert isinstance(body, PythonSpec)
        child.served += 1
        child.fit = child.served < body.max_runs
        child.channel.send(
            Call(
                token=spec.token,
                target=body.target,
                dir=spec.dir,
                pythonpath=body.pythonpath,
                params=body.params,
                run_env=spec.run_env,
                result_max=body.result_max,
                input=body.input,
            )
        )
        self._busiest = max(self._busiest, len(self._attempts))

    # -- what leaders print and say ---------------------------------------------------------------------------------

    def _pump(self, pipe: Pipe) -> None:
        if pipe.fd < 0:
            return  # closed while its event was on the way
        pipe.pump()
        if pipe.ended:
            self._ignore(pipe)

    def _ignore(self, pipe: Pipe) -> None:
        if pipe.watched:
            pipe.watched = False
            self._selector.unregister(pipe.fd)

    def _hear(self, child: WarmChild) -> bool:
        """Take what a child says; False when there is nothing more to hear (now)."""
        if child.channel.hung_up:
            return False
        messages = child.channel.receive()
        for payload in messages or ():
            answer, attempt = decode_answer(payload), child.attempt
            if answer is None or answer.pid != child.pid or attempt is None or answer.token != attempt.spec.token:
                continue
            if not answer.fit:
                child.fit = False
            child.answered = True
            if attempt.running:
                self._ended(attempt, attempt.cause or answer.outcome)
            if attempt.cause is not None or not answer.fit:
                # What it left in this process or below it must not outlive the attempt.
                for process in kin.below([child.pid]):
                    if not process.dead:
                        attempt.leaves(process)
                self._hang_up(child)
                self._signal(child, signal.SIGKILL)
        if child.channel.hung_up:
            child.fit = False  # it ends now, or the job closed the descriptor: either way its exit will tell
        return messages is not None

    def _hang_up(self, child: WarmChild) -> None:
        child.fit = False
        child.channel.close()

    # -- stopping ---------------------------------------------------------------------------------------------------

    def _stop(self, attempt: Attempt, cause: TimedOut | Stopped) -> None:
        if not attempt.running or attempt.cause is not None:
            return
        attempt.cause = cause
        attempt.kill_at = time.monotonic() + attempt.spec.kill_after
        self._wake_by(attempt.kill_at)
        self._signal(attempt.leader, signal.SIGTERM)
        self._signal(attempt.leader, signal.SIGCONT)  # a stopped process hears no TERM

    def _signal(self, leader: Leader, number: int) -> None:
        if not leader.gone:
            kin.signal_group(leader.pid, number)
            if kin.group_of(leader.pid) != leader.pid:  # it has left; others hear a signal once
                kin.signal_pid(leader.pid, number)

    def _recycle(self) -> None:
        for child in [*self._idle]:
            self._retire(child)
        for leader in self._leaders.values():
            if isinstance(leader, WarmChild):
                leader.fit = False

    def _retire(self, child: WarmChild) -> None:
        """Let a child go that nothing runs in: it ends when it finds its socket closed."""
        if child in self._idle:
            self._idle.remove(child)
        self._hang_up(child)
        child.kill_at = time.monotonic() + RETIRE_S
        self._wake_by(child.kill_at)

    # -- ends -------------------------------------------------------------------------------------------------------

    def _note_death(self, *_: object) -> None:
        self._deaths = True

    def _reap(self) -> None:
        self._deaths = False
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                self._strays.reaped(pid)
                leader = self._leaders.pop(pid, None)
                if leader is not None:
                    self._exited(leader, os.waitstatus_to_exitcode(status))

    def _exited(self, leader: Leader, code: int) -> None:
        leader.gone = True
        if not self._strays.can_be_known:
            # Nobody can tell what it left; its group, whose number nobody else can have yet, is all there is to kill.
            kin.signal_group(leader.pid, signal.SIGKILL)
        if isinstance(leader, WarmChild):
            for _ in range(PIPE_MAX // READ_SIZE):  # an answer that it gave right before
                if leader.answered or not self._hear(leader):
                    break  # what descendants of it go on writing there, nobody waits for
            self._hang_up(leader)
            if leader in self._idle:
                self._idle.remove(leader)
        attempt = leader.attempt
        if attempt is None:
            self._forget(leader)
        elif attempt.running:
            self._ended(attempt, attempt.cause or self._outcome(code))

    def _outcome(self, code: int) -> AnyOutcome:
        if code >= 0:
            return Exited(code)
        if code != -signal.SIGKILL:
            return Signaled(-code)
        kills = kin.oom_kills()
        if kills is None or self._oom_kills is None or kills <= self._oom_kills:
            return Signaled(signal.SIGKILL)
        self._oom_kills += 1  # each kill explains one death
        return Signaled(signal.SIGKILL, out_of_memory=True)

    def _ended(self, attempt: Attempt, outcome: AnyOutcome) -> None:
        failpoint("exit.before")
        attempt.outcome = outcome
        attempt.deadline = None
        attempt.given_up_at = time.monotonic() + GIVE_UP_S
        self._ending.append(attempt)

    def _clear(self, now: float) -> None:
        """Kill what attempts left behind, and report those of which nothing is left."""
        self._strays.find(self._leaders.keys(), self._attempts.values())
        unclear = self._strays.kill(now)
        for attempt in [*self._ending]:
            leader = attempt.leader
            answered = isinstance(leader, WarmChild) and leader.answered and not leader.channel.hung_up
            still = not leader.gone and not answered
            if (not still and attempt not in unclear) or now >= attempt.given_up_at:
                self._over(attempt)
                failpoint("exit.after")

    def _over(self, attempt: Attempt) -> None:
        leader, spec = attempt.leader, attempt.spec
        leader.stdout.drain()
        leader.stderr.drain()
        attempt.stdout.close()
        attempt.stderr.close()
        self._ending.remove(attempt)
        del self._attempts[spec.token]
        leader.attempt = leader.stdout.file = leader.stderr.file = None
        if isinstance(leader, WarmChild) and not leader.gone:
            self._rest(leader)
        else:
            self._forget(leader)
        if os.access(spec.progress, os.F_OK):
            with contextlib.suppress(OSError):
                os.unlink(spec.progress)  # how far it is means nothing any more
        assert attempt.outcome is not None
        channel = attempt.channel
        channel.send(
            Over(
                Ended(
                    token=spec.token,
                    outcome=attempt.outcome,
                    stdout_bytes=attempt.stdout.total,
                    stderr_bytes=attempt.stderr.total,
                    remarks=attempt.remarks,
                )
            )
        )
        if channel.hung_up:
            self._desert(channel)
        if not self._attempts:
            self._look_ahead()  # or what was to be done for them would wake us

    def _rest(self, child: WarmChild) -> None:
        child.answered = False
        if not child.fit or child.stdout.ended or child.stderr.ended:
            self._retire(child)
            return
        self._idle.append(child)
        if len(self._idle) > max(IDLE_CHILDREN_MIN, 2 * self._busiest):
            self._retire(self._idle[0])

    def _forget(self, leader: Leader) -> None:
        """Nothing refers to it any more; if it can't be killed, it stays a child to be reaped."""
        self._unwatched.pop(leader, None)
        for pipe in (leader.stdout, leader.stderr):
            self._ignore(pipe)
            os.close(pipe.fd)
            pipe.fd = -1

    # -- the end of it all ------------------------------------------------------------------------------------------

    def end(self) -> None:
        """Kill everything, and tell the worker, if there still is one."""
        self._reap()
        kin.kill_everything_below([leader.pid for leader in self._leaders.values()])
        for leader in self._leaders.values():
            leader.gone = True
        for attempt in [*self._attempts.values()]:
            if attempt.running:
                self._ended(attempt, attempt.cause or self.last_words)
            self._over(attempt)
        deadline = time.monotonic() + LAST_WORDS_S
        for channel in self._threads:
            channel.finish(deadline)


def _descriptor(event: tuple[selectors.SelectorKey, int]) -> int:
    return event[0].fd


def _make_folder(path: str) -> None:
    """For jobs to write their progress in, one for all; where that fails, they go without."""
    if not os.access(path, os.F_OK):
        with contextlib.suppress(OSError):
            os.makedirs(path, 0o700, exist_ok=True)
