"""The dispatcher: the one thread that settles and claims.

Promises:
- Every claim is for a thread that waits for it, so claims never exceed waiting threads.
- Every claim is settled once, whatever becomes of it: by its attempt's end, by a release when no thread took it, or as
  lost when its thread died.
- Settlements are kept until the store has them: a busy or full store delays, and loses nothing. While the disk is
  full, nothing new is claimed.
- When this thread ends, nobody waits for it any more, and `failure` says why it ended.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from hueyctl.engine.attempt import Attempt, Runner, given_back, lost, not_taken
from hueyctl.engine.definitions import Definitions
from hueyctl.engine.log import WorkerLog
from hueyctl.engine.scheduler import Scheduler
from hueyctl.errors import StoreBusy, StoreFull
from hueyctl.model.outcome import describe
from hueyctl.model.transition import Release, Retry, Settlement
from hueyctl.process.spec import StopReason
from hueyctl.storage.bell import Bell, ring
from hueyctl.storage.place import Place
from hueyctl.storage.store import Claim, Exchange, Store, Want

BACKSTOP_S = 0.7  # how late a lost bell is noticed; with the heartbeat, under two wake-ups a second when idle
PATIENCE_S = 1.0  # between tries on a full disk
# How often a busy dispatcher hears and rings the bell. Each is a few system calls, and each of those lets go of
# Python's lock with threads waiting for it: at thousands of runs a second that was a third of the time.
BELL_EVERY_S = 0.005

# For so long after a hand-over to threads that run their attempts themselves, the dispatcher waits for all of those to
# come back: short ones end together, and one transaction for four costs little more than one for one. A process takes
# longer than the wait is worth: with /bin/true it cost a quarter of the rate. (Poll knows nothing below a millisecond.)
LINGER_S = 0.001

Ending = tuple[Attempt | None, Settlement]


class Stopper(Protocol):
    """What stops bodies; the guard's client is one."""

    def stop(self, token: str, reason: StopReason) -> bool:
        """Stop that attempt, if it is there."""


class Body(Runner, Stopper, Protocol):
    """Runs and stops bodies."""


class Events(Protocol):
    """What the dispatcher tells its worker."""

    def asked(self, request: str) -> None:
        """Somebody left a request (`stop`, `reload`) in the store."""

    def idle(self) -> None:
        """Every thread waits, everything is settled, and nothing could be claimed."""

    def someone_died(self) -> None:
        """The bell says that a worker's processes are gone."""

    def dispatcher_ended(self) -> None:
        """The thread is over, well or not."""


class _Seat:
    """A waiting thread's place: filled with an attempt, or with None when there will be none any more."""

    __slots__ = ("_lock", "attempt", "thread")

    def __init__(self) -> None:
        self.thread = threading.current_thread()
        self.attempt: Attempt | None = None
        self._lock = threading.Lock()
        self._lock.acquire()

    def wait(self) -> Attempt | None:
        self._lock.acquire()
        return self.attempt

    def fill(self, attempt: Attempt | None) -> None:
        self.attempt = attempt
        self._lock.release()


class Dispatcher:
    """Hands claimed attempts to waiting threads and brings their ends into the store."""

    def __init__(
        self,
        *,
        worker: str,
        place: Place,
        bell: Bell,
        open_store: Callable[[], Store],
        definitions: Definitions,
        guard: Callable[[], Body],
        concurrency: int,
        queues: tuple[str, ...] | None,
        events: Events,
        log: WorkerLog,
    ) -> None:
        self.worker = worker
        self.definitions = definitions
        self.failure: BaseException | None = None
        self.lease_until = math.inf
        """Until then (monotonic) nobody takes this worker's runs over. Nothing is claimed, and what was claimed before
        isn't started, after it: whoever sets it has renewed the lease."""
        self._place, self._bell, self._open_store, self._guard = place, bell, open_store, guard
        self._concurrency, self._queues = concurrency, queues
        self._events, self._log = events, log
        self._lock = threading.Lock()
        self._seats: list[_Seat] = []
        self._ended: list[Ending] = []
        self._active: dict[str, tuple[Attempt, threading.Thread]] = {}
        self._draining = False  # nothing is claimed any more
        self._stopping = False  # and the thread ends once everything is settled
        self._claimable = True  # a claim might find something
        self._next_due: datetime | None = None
        self._throttled = False  # a queued run waits for nothing but its rate limit
        self._scheduler: Scheduler | None = None
        self._no_slots_until = 0.0  # monotonic: the store takes none at the moment
        self._wake_at = 0  # as soon as so many threads wait, the sleeping dispatcher is woken; 0: it is awake
        self._linger_until = 0.0  # monotonic
        self._to_stop: set[str] = set()
        self._listened_at = self._looked_at = self._rang_at = 0.0
        self._unannounced: bytes | None = None
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_r, False)
        os.set_blocking(self._wake_w, False)
        self._thread = threading.Thread(target=self._run, name="Dispatcher", daemon=True)

    # -- called by Huey's threads -----------------------------------------------------------------------------------

    def next_attempt(self) -> Attempt | None:
        """Wait for an attempt to perform; None: there will be none any more."""
        seat = _Seat()
        with self._lock:
            if self._draining:
                return None
            self._seats.append(seat)
            wake = 0 < self._wake_at <= len(self._seats)
            if wake:
                self._wake_at = 0
        if wake:
            self._wake()
        return seat.wait()

    def ended(self, attempt: Attempt) -> None:
        """Take an attempt's settlement. Its thread asks for the next one right after: that wakes the dispatcher, so
        that one transaction does both."""
        settlement = attempt.settlement()
        with self._lock:
            if self._active.pop(attempt.claim.token, None) is None:
                return  # given back already, as its worker's time was up
            self._ended.append((attempt, settlement))
            draining = self._draining
        if draining:
            self._wake()

    # -- called by the worker's main thread -------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to settle and to claim."""
        self._thread.start()

    def drain(self) -> None:
        """Claim nothing more; the threads that wait get nothing, those that work go on."""
        with self._lock:
            self._draining = True
            seats, self._seats = self._seats, []
        for seat in seats:
            seat.fill(None)
        self._wake()

    def interrupt(self, why: StopReason) -> None:
        """Stop every attempt under way, but those that run in threads, which nothing can stop."""
        with self._lock:
            active = [attempt for attempt, _ in self._active.values()]
        for attempt in active:
            self._guard().stop(attempt.claim.token, why)

    def stoppable(self) -> bool:
        """Is an attempt under way that ends when it is stopped?"""
        with self._lock:
            return any(not attempt.in_thread for attempt, _ in self._active.values())

    def settle_dead_threads(self) -> None:
        """Record as lost what ran in a thread that has died."""
        with self._lock:
            dead = [token for token, (_, thread) in self._active.items() if not thread.is_alive()]
            for token in dead:
                attempt, thread = self._active.pop(token)
                self._ended.append((attempt, lost(attempt, f"{thread.name} of its worker died")))
        if dead:
            self._wake()

    def under_way(self) -> int:
        """How many attempts are being performed."""
        return len(self._active)

    def swap(self, definitions: Definitions) -> None:
        """Claim by other definitions from now on."""
        self.definitions = definitions
        self._claimable = True
        self._wake()

    def look_again(self) -> None:
        """Try to claim, though nothing has said that there is anything."""
        self._claimable = True
        self._wake()

    def stop(self, timeout: float) -> bool:
        """Settle what has ended, give back what hasn't, and end; False where the store didn't take it in time."""
        with self._lock:
            self._stopping = True
        self._wake()
        self._thread.join(timeout)
        return not self._thread.is_alive() and self.failure is None

    # -- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            store = self._open_store()
            try:
                while self._turn(store):
                    pass
            finally:
                store.close()
        except BaseException as exc:
            self.failure = exc
        finally:
            self.drain()
            self._events.dispatcher_ended()

    def _turn(self, store: Store) -> bool:
        lease_until = self.lease_until  # as it was before the claim: what is renewed after that proves nothing of it
        with self._lock:
            if self._stopping:
                self._give_back()
            endings, self._ended = self._ended, []
            free = len(self._seats) if self._may_claim() else 0
            stopping = self._stopping
        if not stopping and not self._draining:
            self._fire(store)
        if endings or (free and self._claimable):
            self._exchange(store, endings, free, lease_until)
        if stopping and not self._ended:
            self._announce(at_once=True)
            return False
        with self._lock:
            may_claim = self._may_claim()
            busy = bool(self._ended) or (bool(self._seats) and self._claimable and may_claim)
            idle = not busy and may_claim and len(self._seats) == self._concurrency and not self._throttled
            self._wake_at = 0 if busy else 1
            others = self._others_end_soon()
            if others:
                self._wake_at = len(self._seats) + others
        if idle:
            self._events.idle()
        if self._to_stop:
            self._stop_revoked()
        again_in = self._announce()
        if others:
            self._listen(store, max(0.0, self._linger_until - time.monotonic()))
        elif not busy:
            self._listen(store, min(self._pause(), BACKSTOP_S if again_in is None else again_in))
        elif time.monotonic() - self._listened_at > BELL_EVERY_S:
            self._listen(store, 0.0)
        return True

    def _may_claim(self) -> bool:
        return not self._draining and time.monotonic() < self.lease_until

    def _fire(self, store: Store) -> None:
        """Decide the slots that are due, by the definitions in force."""
        if time.monotonic() < self._no_slots_until:
            return
        now = datetime.now(UTC)
        scheduler = self._scheduler
        try:
            if scheduler is None or scheduler.definitions is not self.definitions:
                scheduler = Scheduler(self.definitions, self._log)
                scheduler.define(store, now)
                self._scheduler = scheduler
            if scheduler.next_at is not None and scheduler.next_at <= now and scheduler.turn(store, now):
                self._claimable = True
                self._unannounced = b"work"
        except (StoreBusy, StoreFull) as exc:
            self._log.warning(f"the store takes no slots at the moment: {exc}")
            self._no_slots_until = time.monotonic() + PATIENCE_S

    def _give_back(self) -> None:
        """Release what is still under way; whoever ends it later finds its token gone. Called with the lock held."""
        self._ended += [(attempt, given_back(attempt)) for attempt, _ in self._active.values()]
        self._active.clear()

    def _exchange(self, store: Store, endings: list[Ending], free: int, lease_until: float) -> None:
        definitions = self.definitions
        want = None
        if free:
            want = Want(
                worker=self.worker,
                limit=free,
                jobs=definitions.policies,
                queues=self._queues,
                queue_limits=definitions.queue_limits,
                admit=definitions.admit,
            )
        settlements = [settlement for _, settlement in endings]
        try:
            exchange = store.exchange(settlements, want, now=datetime.now(UTC), hooks=definitions.hooks)
        except (StoreBusy, StoreFull) as exc:
            with self._lock:
                self._ended = endings + self._ended
            self._claimable = True
            self._log.warning(f"the store takes nothing at the moment: {exc}")
            if isinstance(exc, StoreFull):
                self._settle_alone(store)
            return
        self._next_due = exchange.next_due
        self._throttled = exchange.throttled
        again = (
            exchange.opened
            or any(isinstance(s.verdict, Retry | Release) for s in settlements)
            or any(attempt is not None and definitions.limited(attempt.claim.run) for attempt, _ in endings)
        )
        # More was due than one transaction should take: nothing may have been claimed yet, and nobody is idle.
        more = exchange.next_due is not None and exchange.next_due <= datetime.now(UTC)
        if free:
            self._claimable = len(exchange.claims) == free or more
        else:
            self._claimable |= again or more
        self._hand_over(exchange.claims, definitions, lease_until)
        self._report(endings, exchange)
        if again or (self._unannounced is None and (endings or exchange.claims)):
            self._unannounced = b"work" if again else b"event"

    def _settle_alone(self, store: Store) -> None:
        """The disk is full: claim nothing until everything that has ended is in the store."""
        while True:
            time.sleep(PATIENCE_S)  # nothing to listen to: only the store matters now
            with self._lock:
                endings, self._ended = self._ended, []
            try:
                if endings:
                    settlements = [settlement for _, settlement in endings]
                    hooks = self.definitions.hooks
                    exchange = store.exchange(settlements, None, now=datetime.now(UTC), hooks=hooks)
                    self._report(endings, exchange)
                    self._unannounced = b"work"
                else:  # any write will do to see whether there is space again
                    store.beat(self.worker, running=self.under_way(), now=datetime.now(UTC))
                return
            except (StoreBusy, StoreFull):
                with self._lock:
                    self._ended = endings + self._ended
            if self._stopping:
                return

    def _hand_over(self, claims: tuple[Claim, ...], definitions: Definitions, lease_until: float) -> None:
        for claim in claims:
            with self._lock:
                seat = self._seats.pop(0) if self._seats else None
                if seat is None:  # it was drained meanwhile
                    self._ended.append((None, not_taken(claim)))
                    continue
                attempt = Attempt(claim, definitions, self._place, self._guard, start_by=lease_until)
                if attempt.in_thread:
                    self._linger_until = time.monotonic() + LINGER_S
                # From here on it can be stopped and given back, whether its thread has woken up yet or not.
                self._active[claim.token] = (attempt, seat.thread)
            seat.fill(attempt)

    def _report(self, endings: list[Ending], exchange: Exchange) -> None:
        """Log what is in the store now, and not before."""
        stale = {settlement.token for settlement in exchange.stale}
        for settlement in exchange.stale:
            self._log.warning(f"an attempt's end came too late and was not counted: {describe(settlement.outcome)}")
        self._log.settled([(a, s) for a, s in endings if a is not None and s.token not in stale])

    def _announce(self, *, at_once: bool = False) -> float | None:
        """Ring for what was committed, not too often; the seconds after which to call again (None: needn't)."""
        if self._unannounced is None:
            return None
        now = time.monotonic()
        if not at_once and now < self._rang_at + BELL_EVERY_S:
            return self._rang_at + BELL_EVERY_S - now
        ring(self._place.bell, self._unannounced, skip=self._bell.path)
        self._unannounced, self._rang_at = None, now
        return None

    def _pause(self) -> float:
        if self._to_stop:
            return BELL_EVERY_S
        # What nothing can be done about, although it is due, must not keep us from sleeping.
        fires = self._scheduler is not None and not self._draining and time.monotonic() >= self._no_slots_until
        slot = self._scheduler.next_at if self._scheduler is not None and fires else None
        due = self._next_due if self._seats and self._may_claim() else None
        instants = [at for at in (due, slot) if at is not None]
        if not instants:
            return BACKSTOP_S
        return min(BACKSTOP_S, max(0.0, (min(instants) - datetime.now(UTC)).total_seconds()))

    def _listen(self, store: Store, timeout: float) -> None:
        readable = select.poll()
        readable.register(self._bell.fileno(), select.POLLIN)
        readable.register(self._wake_r, select.POLLIN)
        ready = dict(readable.poll(timeout * 1000))
        self._listened_at = time.monotonic()
        if self._wake_r in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_r, 4096)
        kinds = self._bell.drain() if self._bell.fileno() in ready else set()
        # Of a bell that is full the newest is lost, and it may have been the one that matters: others' events, however
        # many, don't put off a look of our own.
        late = (not ready and timeout > LINGER_S) or self._listened_at - self._looked_at > BACKSTOP_S
        if late:
            self._looked_at = self._listened_at
        if kinds & {b"work", b"ask"} or (late and store.changed()):
            self._claimable = True
            self._look_for_requests(store)
        elif self._next_due is not None and self._next_due <= datetime.now(UTC):
            self._claimable = True
        if b"death" in kinds:
            self._events.someone_died()

    def _others_end_soon(self) -> int:
        """How many attempts in threads may come back within the time to linger. Called with the lock held."""
        if time.monotonic() >= self._linger_until:
            return 0
        return sum(attempt.in_thread for attempt, _ in self._active.values())

    def _look_for_requests(self, store: Store) -> None:
        try:
            request, to_stop = store.asked(self.worker)
        except (StoreBusy, StoreFull):
            return  # the next change is looked at again
        self._to_stop |= {token for _, token in to_stop}
        if request is not None:
            self._events.asked(request)

    def _stop_revoked(self) -> None:
        """Stop what was revoked while running, as soon as the guard knows of it: between a claim and its start there
        is nothing to stop yet."""
        with self._lock:
            self._to_stop &= {token for token, (attempt, _) in self._active.items() if not attempt.in_thread}
        self._to_stop = {token for token in self._to_stop if not self._guard().stop(token, "revoked")}

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: it is awake already
            os.write(self._wake_w, b"x")
