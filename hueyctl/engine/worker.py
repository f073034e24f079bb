"""A worker's life: it comes online, works, reloads, drains, and leaves nothing behind.

Promises:
- Nothing is claimed before the worker's locks are held, its guard is ready and it is in the store.
- TERM and INT (and `worker stop`) drain; a second of either interrupts; HUP (and `worker reload`) swaps in the new
  `jobs.toml`, or keeps the old one and says what is wrong with the new.
- It returns 0 after an orderly end, and 4 when the store can't be used any more; then what was under way is rescued.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime
from typing import Literal

import msgspec

from hueyctl import __version__
from hueyctl.config.load import load
from hueyctl.engine.attempt import python_path_for_threads
from hueyctl.engine.consumer import HEALTH_CHECK_S, RunnerConsumer
from hueyctl.engine.definitions import Definitions
from hueyctl.engine.dispatcher import Dispatcher
from hueyctl.engine.guard_main import guard_argv
from hueyctl.engine.heap import look_for_garbage_less_often, share_one_heap
from hueyctl.engine.heart import Heart, patience_of_a_beat
from hueyctl.engine.hooks import hooks_of
from hueyctl.engine.keeper import Keeper
from hueyctl.engine.lacking import lacking
from hueyctl.engine.log import WorkerLog, listen_to_huey
from hueyctl.engine.mailbox import Mailbox
from hueyctl.engine.queue import RunnerHuey
from hueyctl.errors import (
    ConfigError,
    HueyctlError,
    Refused,
    StoreBusy,
    StoreError,
    StoreFull,
    StoreMissing,
    StoreReplaced,
    StoreUncertain,
)
from hueyctl.model.definition import Project
from hueyctl.process.client import (
    LAST_KILL_S,
    Guard,
    GuardFailed,
    StillRunning,
    become_subreaper,
    kill_descendants,
)
from hueyctl.storage.bell import ring
from hueyctl.storage.identity import erase, note
from hueyctl.storage.locks import hold
from hueyctl.storage.place import Place, told
from hueyctl.storage.store import Store
from hueyctl.storage.store import Worker as WorkerRecord
from hueyctl.storage.stores import open_bell, open_store

READY_FD = "HUEYCTL_READY_FD"
JOIN_S = 0.05  # between looks at the threads while draining
CLEAR_UP_S = 10.0  # after a guard that died, before another is started
AFTERMATH_S = 1.0  # for the threads to take what the guard's end tells them
SAY_S = 0.5  # for what is only to be shown
LAST_WRITE_S = 30.0  # for the last settlements, on a slow or busy store


class WorkerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line may set over the file's `[worker]` table."""

    concurrency: int | None = None
    queues: tuple[str, ...] | None = None
    burst: bool = False
    log_format: Literal["text", "json"] = "text"


def run_worker(project: Project, options: WorkerOptions) -> int:
    """Work until told to stop; returns the exit code.

    Raises:
        StoreError: the store can't be used; nothing was started.
    """
    place = Place.of(project.store, project.dir)
    place.prepare()
    new = _make_ready(place)
    worker = _Worker(project, options, place)
    exit_code = worker.live(new=new)
    if worker.left_something_running():
        # It was given back: Python's own exit would wait for the threads that such a job has started.
        os._exit(exit_code)
    return exit_code


def detach_worker(argv: Sequence[str], place: Place) -> int:
    """Start `hueyctl` with these arguments in the background, its output added to `place.log`, and wait until it is
    online (0) or has failed (its exit code)."""
    place.prepare()
    try:
        log_fd = os.open(place.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as exc:
        raise told(exc, place.log) from exc
    ready, its_end = os.pipe()
    with os.fdopen(log_fd, "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "hueyctl", *argv],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=[its_end],
            env={**os.environ, READY_FD: str(its_end)},
        )
    os.close(its_end)
    with os.fdopen(ready, "rb") as pipe:
        online = pipe.read(1) == b"1"
    if online:
        process.returncode = 0  # it outlives us on purpose; Popen would warn that it still runs
        return 0
    return process.wait() or 1


def _open(place: Place, *, busy_s: float = 5.0) -> Store:
    return open_store(place, create=True, migrate=True, busy_s=busy_s)


def _make_ready(place: Place) -> bool:
    """Bring the store up to date, or make it where there is none yet (True)."""
    try:
        open_store(place, migrate=True).close()
    except StoreMissing:
        _open(place).close()
        return True
    return False


class _Worker:
    """One worker process."""

    def __init__(self, project: Project, options: WorkerOptions, place: Place) -> None:
        self.id = secrets.token_hex(4)
        self._options, self._place = options, place
        self._ready_fd = os.environ.pop(READY_FD, None)  # before any child could inherit it
        self._environ = dict(os.environ)
        self._log = WorkerLog(options.log_format)
        self._mailbox = Mailbox()
        self._started_at = datetime.now(UTC)
        self._lease = project.worker.lease
        self._concurrency = options.concurrency or project.worker.concurrency
        self._queues = options.queues if options.queues is not None else project.worker.queues
        self._definitions = self._defined(project)
        self._leaving = False
        self._looked_after_rescue = False
        self._replaced = False  # the store's file, by another
        self._known = True  # to the store, as it is now
        self._taken_out = False
        self._outlived: Refused | None = None  # by what nobody can kill

    @property
    def _project(self) -> Project:
        return self._definitions.project

    def live(self, *, new: bool) -> int:
        """From coming online to the end; returns the exit code."""
        share_one_heap()
        self._mailbox.listen_to_signals()
        listen_to_huey(self._log)
        become_subreaper()
        self._prepare_threads()
        lock = hold(self._place.worker_lock(self.id))
        if lock is None:
            raise StoreError(f"{self._place.worker_lock(self.id)} is held by another process")
        try:
            try:
                self._guard = self._start_guard()
            except GuardFailed as exc:
                raise HueyctlError(str(exc)) from exc
            self._bell = open_bell(self._place)
            store = _open(self._place)  # kept open, so that its log stays the same file for this worker's life
            try:
                note(lock, self._place)
                stores = self._come_online()
                self._say_online(new)
                return self._work(*stores)
            except StoreReplaced:
                self._replaced = True
                raise
            finally:
                if not self._replaced and self._place.address is None:
                    erase(lock)
                store.close()
                self._bell.close()
                self._guard.close(timeout=10.0)
                kill_descendants(within_s=LAST_KILL_S)
        finally:
            if self._replaced or (self._place.address is not None and not self._taken_out):
                # With what is noted in it: whoever comes next must not take the other file for ours; and on a server it
                # is by the note that our runs are known to be this machine's, and are given back at once.
                lock.abandon()
            else:
                lock.release()
            ring(self._place.bell, b"death")
            self._mailbox.ignore_signals()

    def left_something_running(self) -> bool:
        """Is a job still on in one of its threads, which nothing can stop?"""
        return not self._consumer.finished()

    # -- coming online ----------------------------------------------------------------------------------------------

    def _start_guard(self) -> Guard:
        lock = self._place.guard_lock(self.id)
        argv = guard_argv(lock=lock, lease_s=self._lease.total_seconds(), bell_dir=self._place.bell)
        return Guard.start(argv=argv, on_death=self._guard_died)

    def _guard_died(self) -> Guard | None:
        """Called before the attempts that it had are settled as lost: what they left must be gone by then. Returns the
        guard that takes its place."""
        if self._leaving:
            return None
        how = "answered no more and was killed" if self._guard.hung else "died"
        if not kill_descendants(within_s=CLEAR_UP_S):
            self._log.error(f"the guard {how}, and what it ran can't be killed")
            self._outlived = Refused("what its guard left running can't be killed: its runs are given back then")
            self._mailbox.post("broken")
            raise StillRunning
        self._log.error(f"the guard {how}, and with it all that it ran; starting another")
        try:
            self._guard = self._start_guard()
        except (OSError, GuardFailed) as exc:
            self._log.error(f"no other guard could be started: {exc}")
            self._mailbox.post("broken")
            raise
        return self._guard

    def _come_online(self) -> tuple[Store, Store, Store]:
        """Tell the store; returns a connection each for the dispatcher, the heart and the keeper.

        They are opened before anybody hears of this worker: from then on each waits for a server that is gone.
        """
        with ExitStack() as opened:
            for_dispatcher = opened.enter_context(closing(_open(self._place)))
            for_heart = opened.enter_context(closing(_open(self._place, busy_s=patience_of_a_beat(self._lease))))
            for_keeper = opened.enter_context(closing(_open(self._place)))
            self._register()
            opened.pop_all()
        return for_dispatcher, for_heart, for_keeper

    def _register(self) -> None:
        store = _open(self._place)
        self._registered_at = time.monotonic()
        try:
            store.register(self._record(), now=datetime.now(UTC))
            store.readmit(list(self._project.jobs), now=datetime.now(UTC))
        finally:
            store.close()
        ring(self._place.bell, b"work")  # what was held may be claimed now, by our own dispatcher too

    def _defined(self, project: Project) -> Definitions:
        return Definitions(project, self._environ, hooks_of(project, self._place, self._log))

    def _record(self) -> WorkerRecord:
        return WorkerRecord(
            id=self.id,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=__version__,
            file=str(self._project.path),
            concurrency=self._concurrency,
            jobs=tuple(self._project.jobs),
            queues=self._queues,
            lease_s=self._lease.total_seconds(),
            started_at=self._started_at,
            beat_at=datetime.now(UTC),
        )

    def _say_online(self, new: bool) -> None:
        queues = "all queues" if self._queues is None else "queues " + ", ".join(self._queues)
        jobs = len(self._project.jobs)
        self._log.info(
            f"worker {self.id} online: store {self._place.shown}{' (new)' if new else ''}, "
            f"{jobs} job{'' if jobs == 1 else 's'} of {self._project.path}, concurrency {self._concurrency}, {queues}",
            worker=self.id,
        )
        self._say_what_is_lacking()
        if self._ready_fd is not None:
            os.write(int(self._ready_fd), b"1")
            os.close(int(self._ready_fd))

    def _say_what_is_lacking(self) -> None:
        """On a thread of its own: a folder on a dead network file system is looked at for ever."""
        definitions = self._definitions

        def say() -> None:
            for line in lacking(definitions, self._queues):
                self._log.warning(f"{definitions.project.path.name}: {line}")

        threading.Thread(target=say, name="Lacking", daemon=True).start()

    def _prepare_threads(self) -> None:
        if self._definitions.thread_targets():
            python_path_for_threads([str(path) for path in self._project.pythonpath])

    # -- working ----------------------------------------------------------------------------------------------------

    def _work(self, for_dispatcher: Store, for_heart: Store, for_keeper: Store) -> int:
        self._dispatcher = Dispatcher(
            worker=self.id,
            place=self._place,
            bell=self._bell,
            definitions=self._definitions,
            guard=lambda: self._guard,
            concurrency=self._concurrency,
            queues=self._queues,
            events=self,
            log=self._log,
        )
        self._renewed(self._registered_at)
        self._heart = Heart(
            worker=self.id,
            lease=self._lease,
            tick=self._tick,
            renewed=self._renewed,
            running=self._dispatcher.under_way,
            declared_dead=lambda: self._mailbox.post("declared-dead"),
            ended=lambda: self._mailbox.post("ended"),
            log=self._log,
        )
        self._keeper = Keeper(
            worker=self.id,
            place=self._place,
            definitions=lambda: self._definitions,
            ended=lambda: self._mailbox.post("ended"),
            log=self._log,
        )
        self._huey = RunnerHuey(self._dispatcher.next_attempt, self._dispatcher.ended, self._definitions)
        self._consumer = RunnerConsumer(self._huey, concurrency=self._concurrency)
        self._heart.start(for_heart)
        self._keeper.start(for_keeper)
        self._dispatcher.start(for_dispatcher)
        self._consumer.start()
        look_for_garbage_less_often()
        reason = self._attend()
        return self._leave(reason)

    def _attend(self) -> str:
        """Sleep until there is something to do; returns why the worker is to end."""
        next_check = time.monotonic() + HEALTH_CHECK_S
        while True:
            match self._mailbox.next(next_check - time.monotonic()):
                case "TERM" | "INT" as signal:
                    return f"SIG{signal}"
                case "stop":
                    return "asked to stop"
                case "HUP" | "reload":
                    self._reload()
                case "idle":
                    return "nothing is left that is due"
                case "death":
                    self._keeper.wake()
                case "declared-dead":
                    self._rise_again()
                case "unknown" if not self._known:
                    self._make_known()
                case "ended" | "broken":
                    return "broken"
            if time.monotonic() >= next_check:
                next_check = time.monotonic() + HEALTH_CHECK_S
                self._consumer.check_worker_health()
                self._dispatcher.settle_dead_threads()

    def _reload(self) -> None:
        try:
            project = load(self._project.path, environ=self._environ)
            if not project.jobs and self._project.jobs:
                # Half-written, or truncated by an editor: every run that is queued would be held.
                raise ConfigError([f"{project.path.name}: it defines no job any more"])
            if project.store != self._project.store:
                raise ConfigError([f"{project.path.name}: hueyctl.store: can't change while a worker runs; restart it"])
            definitions = self._defined(project)
        except HueyctlError as exc:
            self._log.error(f"not reloaded, going on with the old file: {exc.message}")
            return
        before = self._project.worker
        self._definitions = definitions
        self._prepare_threads()
        self._guard.recycle()
        self._huey.swap(definitions)
        self._dispatcher.swap(definitions)
        try:
            self._register()
        except StoreError as exc:
            self._known = False  # the next heartbeat says when it can be told
            self._log.warning(f"reloaded, but the store doesn't know of it yet: {exc}")
        self._keeper.wake()  # what is held may be defined now
        self._log.info(f"reloaded {project.path}: {len(project.jobs)} jobs")
        self._say_what_is_lacking()
        if project.worker != before:
            self._log.warning("the [worker] table has changed: that takes a restart of the worker")

    def _rise_again(self) -> None:
        """Somebody took this worker for dead, as it was silent for longer than its lease: what it ran is another's."""
        if self._is_in_store():
            return  # it is back already: of two beats that missed it the second was told late
        self._log.error("this worker was silent for longer than its lease; its runs were given to others")
        self._dispatcher.interrupt("stale")
        try:
            self._register()
            self._tick()  # before anything is started: the guard, or its successor, counts since it last heard of us
            self._renewed(self._registered_at)
        except (StoreBusy, StoreFull, StoreUncertain) as exc:
            self._log.warning(f"not back in the store yet: {exc}")  # the next heartbeat finds out and tries again

    def _is_in_store(self) -> bool:
        with suppress(StoreError), closing(_open(self._place)) as store:
            return any(each.id == self.id for each in store.workers())
        return False

    def _renewed(self, at: float) -> None:
        """The store has heard of this worker, not before `at` (monotonic)."""
        self._dispatcher.renew(at + self._lease.total_seconds())
        if not self._known:
            self._mailbox.post("unknown")

    def _make_known(self) -> None:
        """Tell the store of what was reloaded while it could not be told."""
        with suppress(StoreError):
            self._register()
            self._known = True

    def _tick(self) -> None:
        self._guard.tick()  # whichever it is by now

    # -- what the dispatcher tells ----------------------------------------------------------------------------------

    def asked(self, request: str) -> None:
        """Somebody left a request in the store."""
        self._mailbox.post(request)

    def idle(self) -> None:
        """There is nothing to do."""
        if not self._options.burst or not self._keeper.has_looked:
            return
        if self._looked_after_rescue:
            self._mailbox.post("idle")
        else:
            # What was claimed last may have been before the dead workers' runs were given back.
            self._looked_after_rescue = True
            self._dispatcher.look_again()

    def someone_died(self) -> None:
        """A worker's processes are gone."""
        self._mailbox.post("death")

    def dispatcher_ended(self) -> None:
        """The dispatcher's thread is over."""
        self._mailbox.post("ended")

    # -- leaving ----------------------------------------------------------------------------------------------------

    def _leave(self, reason: str) -> int:
        failure = self._dispatcher.failure or self._heart.failure or self._keeper.failure or self._outlived
        if reason == "broken" or failure is not None:
            return self._break_off(failure)
        self._log.info(f"stopping: {reason}; {self._dispatcher.under_way()} under way")
        self._dispatcher.drain()
        self._consumer.finish()
        if self._dispatcher.under_way():
            self._say_that_it_stops()
        if not self._wait_for_threads(self._project.worker.shutdown_timeout.total_seconds()):
            self._log.warning("interrupting what is still under way")
            self._dispatcher.interrupt("interrupted")
            self._wait_for_threads(self._longest_kill_s(), interruptible=False)
        self._leaving = True
        # Before anything is given back: whoever takes it next must not meet what is left of it here.
        if not self._guard.close(timeout=10.0):
            return self._leave_behind()
        self._wait_for_threads(AFTERMATH_S, interruptible=False)
        if not self._dispatcher.stop(LAST_WRITE_S):
            return self._break_off(self._dispatcher.failure)
        self._keeper.stop()
        self._heart.stop()
        store = _open(self._place)
        try:
            store.unregister(self.id, reason=reason, now=datetime.now(UTC))
            self._taken_out = True
        finally:
            store.close()
        ring(self._place.bell, b"work")
        self._log.info(f"worker {self.id} offline")
        return 0

    def _say_that_it_stops(self) -> None:
        """In the store, for who looks while it drains; a signal told nobody."""
        with suppress(StoreError), closing(_open(self._place, busy_s=SAY_S)) as store:
            store.ask(self.id, "stop", by=self.id, now=datetime.now(UTC))

    def _leave_behind(self) -> int:
        """Something that can't be killed goes on: settle what has ended, give nothing else back, and leave the rest to
        be rescued when it is gone (`kill_what_outlived`)."""
        self._log.error(f"worker {self.id} ends; what it runs can't be killed: its runs are given back when it is gone")
        self._dispatcher.keep()
        self._dispatcher.stop(LAST_WRITE_S)
        return Refused.exit_code

    def _break_off(self, failure: BaseException | None) -> int:
        """The store is lost to us: stop everything, and leave what ran to be rescued."""
        self._leaving = True
        self._dispatcher.abandon()  # what is claimed from now on would be lost, time and again
        self._replaced = isinstance(failure, StoreReplaced)
        self._log.error(f"worker {self.id} ends: {failure or 'its guard or its store failed'}")
        return failure.exit_code if isinstance(failure, HueyctlError) else StoreError.exit_code

    def _wait_for_threads(self, timeout: float, *, interruptible: bool = True) -> bool:
        """Wait for Huey's threads to end; False: time is up, or a second signal came."""
        deadline = time.monotonic() + timeout
        while not self._consumer.finished():
            letter = self._mailbox.next(min(JOIN_S, deadline - time.monotonic()))
            if time.monotonic() >= deadline or (interruptible and letter in {"TERM", "INT"}):
                return False
            if not interruptible and not self._dispatcher.stoppable():
                return False
        return True

    def _longest_kill_s(self) -> float:
        return 5.0 + max((job.kill_after.total_seconds() for job in self._project.jobs.values()), default=0.0)
