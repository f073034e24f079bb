"""The dispatcher: what settles and claims, on one thread at a time.

That is its own thread, or one of Huey's that would only wait otherwise (`_help`).

Promises:
- Every claim is for a thread that waits for it, so claims never exceed waiting threads.
- Every claim is settled once, whatever becomes of it: by its attempt's end, by a release when no thread took it, or as
  lost when its thread died.
- Settlements are kept until the store has them: a busy or full store delays, and loses nothing. While the disk is
  full, nothing new is claimed.
- When its thread ends, nobody waits for it any more, and `failure` says why it ended.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Protocol

from hueyctl.engine.attempt import Attempt, Runner, given_back, lost, not_taken
from hueyctl.engine.definitions import Definitions
from hueyctl.engine.log import WorkerLog
from hueyctl.engine.pace import LINGER_S, Pace
from hueyctl.engine.scheduler import Scheduler
from hueyctl.engine.seats import Seats
from hueyctl.errors import StoreBusy, StoreFull, StoreUncertain, StoreUnreachable
from hueyctl.model.outcome import describe
from hueyctl.model.transition import Release, Retry, Settlement
from hueyctl.process.spec import StopReason
from hueyctl.storage.bell import Bell, ring
from hueyctl.storage.place import Place
from hueyctl.storage.store import Claim, Exchange, Store, Want

BACKSTOP_S = 0.7  # how late a lost bell is noticed; with the heartbeat, under two wake-ups a second when idle
PATIENCE_S = 1.0  # between tries on a full disk
# How often a busy dispatcher rings the bell and writes its log. Each is a few system calls, and each of those lets go
# of Python's lock with threads waiting for it: at thousands of runs a second that was a third of the time.
BELL_EVERY_S = 0.005

SLACK_S = 0.001  # poll knows nothing below a millisecond

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


class Dispatcher:
    """Hands claimed attempts to waiting threads and brings their ends into the store."""

    def __init__(
        self,
        *,
        worker: str,
        place: Place,
        bell: Bell,
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
        # Until then (monotonic) nobody takes this worker's runs over. Nothing is claimed, and what was claimed before
        # isn't started, after it.
        self._lease_until = math.inf
        self._place, self._bell, self._guard = place, bell, guard
        self._bells = place.bell
        self._concurrency, self._queues = concurrency, queues
        self._events, self._log = events, log
        self._lock = threading.Lock()
        # To settle and claim is one role, which one thread has at a time; the store and what is known of it are that
        # thread's. Of the two locks it is the outer one.
        self._role = threading.Lock()
        self._store: Store | None = None
        self._raised: BaseException | None = None  # by the store: nothing is settled or claimed any more
        self._troubled = False  # the store took nothing the last time: only our own thread tries again
        self._refused_until: float | None = None  # the store took nothing: nothing is tried until then (monotonic)
        self._seats = Seats(self._lock)
        self._ended: list[Ending] = []
        self._ended_at = 0.0  # the first of those
        self._active: dict[str, Attempt] = {}
        self._draining = False  # nothing is claimed any more
        self._stopping = False  # and the thread ends once everything is settled
        self._abandoned = False  # nothing is settled any more either
        self._kept = False  # nothing is given back that may go on
        self._claimable = True  # a claim might find something
        self._next_due: datetime | None = None
        self._throttled = False  # a queued run waits for nothing but its rate limit
        self._scheduler: Scheduler | None = None
        self._no_slots_until = 0.0  # monotonic: the store takes none at the moment
        self._helping = False  # it is a thread of Huey's that has the role
        self._lined_up = 0  # so many more wait for it
        self._pace = Pace()
        self._rung = False  # there may be something new to claim
        self._asleep_until = 0.0  # our own thread; 0: it is awake
        self._to_stop: set[str] = set()
        self._stopped_at = 0.0  # the last try
        self._looked_at = self._rang_at = self._exchanged_at = 0.0
        self._unannounced: bytes | None = None
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_r, False)
        os.set_blocking(self._wake_w, False)
        self._thread = threading.Thread(target=self._run, name="Dispatcher", daemon=True)

    # -- called by Huey's threads -----------------------------------------------------------------------------------

    def next_attempt(self) -> Attempt | None:
        """Wait for an attempt to perform; None: there will be none any more."""
        attempt = self._seats.take(self._help)
        left = self._ended or (self._claimable and self._seats.free)
        if left and self._asleep_until > time.monotonic() + 2 * LINGER_S:
            # Who takes what was claimed for another, which hasn't come for it yet, helps nobody: its own last attempt
            # isn't settled, and the other may sleep with work at hand.
            self._wake()
        return attempt

    def ended(self, attempt: Attempt) -> None:
        """Take an attempt's settlement. Its thread asks for the next one right after, and brings it in then."""
        settlement = attempt.settlement()
        with self._lock:
            if self._active.pop(attempt.claim.token, None) is None:
                return  # given back already, as its worker's time was up
            self._pace.ended(attempt)
            if not self._ended:
                self._ended_at = time.monotonic()
            self._ended.append((attempt, settlement))
            draining = self._draining
        if draining:
            self._wake()

    def _help(self) -> None:
        """Do what the dispatcher's thread would do now for the calling one, which is about to wait.

        Python's threads run one at a time: to wake another one, and be woken by it, costs as much as the store does.
        Among short attempts the last one does it for all; otherwise the first who finds the role taken waits for it,
        and does for all what has come up meanwhile. (Not where the one who has it is about to perform what it claims:
        it will be back sooner than this one would have woken up.)
        """
        if not self._helpful():
            if self._troubled or self._seats.free == self._concurrency:
                self._wake()  # only our own thread tries again; and it alone says that nobody has anything to do
            return
        if self._lined_up or self._pace.others_end() or (self._helping and self._pace.one_by_one):
            return
        with self._lock:
            self._lined_up += 1
        with self._role:
            with self._lock:
                self._lined_up -= 1
                self._helping = True
            done = self._help_out()
            self._helping = False
        with self._lock:
            # Whoever waits for the role looks after us, and does what is to be done.
            wake = not done or (not self._lined_up and self._needed_at() < self._asleep_until - SLACK_S)
        if wake:
            self._wake()

    def _help_out(self) -> bool:
        """With the role; False: our own thread has to look whether that was all."""
        try:
            store = self._store
            if store is None or not self._helpful() or self._pace.others_end():
                return True  # it has been done meanwhile, or soon will be
            claimed = self._exchange(store)
            self._announce()
            return claimed
        except BaseException as exc:
            self._raised = exc
            return False

    def _helpful(self) -> bool:
        return (
            not (self._troubled or self._stopping or self._abandoned or self._raised)
            and self._store is not None
            and (bool(self._ended) or (self._claimable and self._seats.free > 0 and self._may_claim()))
        )

    # -- called by the worker's main thread -------------------------------------------------------------------------

    def start(self, store: Store) -> None:
        """Begin to settle and to claim. The store is the dispatcher's own, and closed at its end."""
        self._store = store
        self._thread.start()

    def drain(self) -> None:
        """Claim nothing more; the threads that wait get nothing, those that work go on."""
        with self._lock:
            self._draining = True
            self._seats.close()
        self._wake()

    def abandon(self) -> None:
        """Settle nothing more, not even what ends now: all that is under way is left to be rescued."""
        self._abandoned = True
        self.drain()

    def keep(self) -> None:
        """Give back nothing of what processes perform: it goes on, though we end."""
        self._kept = True

    def interrupt(self, why: StopReason) -> None:
        """Stop every attempt under way, but those that run in threads, which nothing can stop."""
        with self._lock:
            active = [*self._active.values()]
        for attempt in active:
            if not attempt.call_off(why):
                self._guard().stop(attempt.claim.token, why)

    def stoppable(self) -> bool:
        """Is an attempt under way that ends when it is stopped?"""
        with self._lock:
            return any(not attempt.in_thread for attempt in self._active.values())

    def settle_dead_threads(self) -> None:
        """Record as lost what ran in a thread that has died."""
        with self._lock:
            performed = [(attempt, attempt.thread) for attempt in self._active.values() if attempt.thread is not None]
            dead = [(attempt, thread) for attempt, thread in performed if not thread.is_alive()]
            for attempt, thread in dead:
                del self._active[attempt.claim.token]
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

    def renew(self, lease_until: float) -> None:
        """The store has heard of this worker: until then (monotonic) its runs are its own."""
        lapsed, self._lease_until = time.monotonic() >= self._lease_until, lease_until
        if lapsed:  # something may have become due meanwhile
            self.look_again()

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
        store = self._store
        assert store is not None  # since `start`
        try:
            try:
                while self._turn(store):
                    self._listen(store)
            finally:
                with self._role:
                    self._store = None
                    store.close()
        except BaseException as exc:
            self.failure = exc
        finally:
            self._log.flush()
            self.drain()
            self._events.dispatcher_ended()

    def _turn(self, store: Store) -> bool:
        """Do what is to be done now; False: it was the last time."""
        with self._in_role():
            if self._raised is not None:
                raise self._raised
            if self._abandoned:
                return False
            with self._lock:
                stopping = self._stopping
                if stopping:
                    self._give_back()
            if not stopping and not self._draining:
                self._fire(store)
            if self._refused_until is not None:
                self._try_again(store)
            elif self._due():
                self._exchange(store)
            if stopping and not self._ended:
                self._announce(at_once=True)
                return False
            self._announce()
            with self._lock:
                idle = (
                    self._may_claim()
                    and self._seats.free == self._concurrency
                    and not (self._ended or self._claimable or self._throttled)
                )
        if idle:
            self._events.idle()
        if self._to_stop:
            self._stop_revoked()
        return True

    @contextlib.contextmanager
    def _in_role(self) -> Iterator[None]:
        """Have the role in the block. Where that fails nobody has it any more: it isn't known what is in the store, and
        what were claimed now would be lost with this worker."""
        with self._role:
            try:
                yield
            except BaseException as exc:
                self._raised = exc
                raise

    def _due(self) -> bool:
        """Is there something to settle, or to claim, that no other thread is about to?"""
        now = time.monotonic()
        alone = self._draining or self._stopping or self._troubled
        if not alone and not self._rung and now < self._pace.linger_until:
            return False  # whoever comes back last does it
        if self._ended and (alone or now >= self._ended_at + LINGER_S):
            return True
        return self._claimable and self._seats.free > 0 and self._may_claim()

    def _may_claim(self) -> bool:
        return not self._draining and time.monotonic() < self._lease_until

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
                self._look_for_requests(store)  # `overlap = "replace"` may have one of ours stopped
        except (StoreBusy, StoreFull) as exc:
            self._log.warning(f"the store takes no slots at the moment: {exc}")
            self._no_slots_until = time.monotonic() + PATIENCE_S

    def _give_back(self) -> None:
        """Release what is still under way; whoever ends it later finds its token gone. Called with the lock held."""
        for attempt in self._seats.take_back():
            del self._active[attempt.claim.token]
            self._ended.append((None, not_taken(attempt.claim)))
        back = [attempt for attempt in self._active.values() if attempt.in_thread or not self._kept]
        self._ended += [(attempt, given_back(attempt)) for attempt in back]
        self._active.clear()

    def _exchange(self, store: Store) -> bool:
        """Settle what has ended and claim for those who wait. Was anything claimed?"""
        lease_until = self._lease_until  # as it was before the claim: what is renewed after that proves nothing of it
        with self._lock:
            endings, self._ended = self._ended, []
            free = self._seats.free if self._may_claim() else 0
        if not endings and not (free and self._claimable):
            return False
        self._rung = False
        if free:
            self._claimable = False  # before the store is asked: who says meanwhile that there is something is heard
        definitions = self.definitions  # and after that: who swaps them says so
        want = self._want(free, definitions) if free else None
        settlements = [settlement for _, settlement in endings]
        try:
            exchange = store.exchange(settlements, want, now=datetime.now(UTC), hooks=definitions.hooks)
        except (StoreBusy, StoreFull) as exc:
            with self._lock:
                self._ended = endings + self._ended
            self._claimable = self._troubled = True
            self._log.warning(f"the store takes nothing at the moment: {exc}")
            if isinstance(exc, StoreFull | StoreUnreachable):
                self._refused_until = time.monotonic() + PATIENCE_S
            return False
        self._troubled = False
        self._exchanged_at = time.monotonic()
        self._next_due = exchange.next_due
        if want is not None:
            self._throttled = exchange.throttled
        elif self._throttled:
            self._claimable = True  # when its limit opens, only a claim can say
        again = exchange.opened or any(_lets_go(attempt, end, definitions) for attempt, end in endings)
        # More was due than one transaction should take: nothing may have been claimed yet, and nobody is idle.
        more = exchange.next_due is not None and exchange.next_due <= datetime.now(UTC)
        if more or (len(exchange.claims) == free if free else again):
            self._claimable = True
        self._report(endings, exchange)
        if exchange.claims:
            self._hand_over(exchange.claims, definitions, lease_until)
        if again or (self._unannounced is None and (endings or exchange.claims)):
            self._unannounced = b"work" if again else b"event"
        return bool(exchange.claims)

    def _want(self, limit: int, definitions: Definitions) -> Want:
        return Want(
            worker=self.worker,
            limit=limit,
            jobs=definitions.policies,
            queues=self._queues,
            queue_limits=definitions.queue_limits,
            admit=definitions.admit,
        )

    def _try_again(self, store: Store) -> None:
        """The disk was full, or the server away: claim nothing until all that has ended is in the store."""
        if self._refused_until is not None and time.monotonic() < self._refused_until:
            return
        with self._lock:
            endings, self._ended = self._ended, []
        try:
            if endings:
                settlements = [settlement for _, settlement in endings]
                exchange = store.exchange(settlements, None, now=datetime.now(UTC), hooks=self.definitions.hooks)
                self._report(endings, exchange)
                self._unannounced = b"work"
            else:  # any write will do to see whether there is space again
                store.beat(self.worker, running=self.under_way(), now=datetime.now(UTC))
            self._refused_until, self._troubled = None, False
        except (StoreBusy, StoreFull, StoreUncertain) as exc:
            if endings and isinstance(exc, StoreUncertain):
                raise  # of a mere beat it is nothing to us whether it came in
            with self._lock:
                self._ended = endings + self._ended
            self._refused_until = time.monotonic() + PATIENCE_S

    def _hand_over(self, claims: tuple[Claim, ...], definitions: Definitions, lease_until: float) -> None:
        attempts = [Attempt(claim, definitions, self._place, self._guard, start_by=lease_until) for claim in claims]
        with self._lock:
            if self._draining:  # meanwhile
                self._ended += [(None, not_taken(claim)) for claim in claims]
                return
            # From here on they can be stopped and given back, whether a thread has taken them yet or not.
            self._active |= {attempt.claim.token: attempt for attempt in attempts}
            self._pace.handed_over(attempts)
            here = threading.current_thread() is not self._thread
            self._seats.give(attempts, one=self._pace.one_by_one, here=here)

    def _report(self, endings: list[Ending], exchange: Exchange) -> None:
        """Log what is in the store now, and not before."""
        stale = {settlement.token for settlement in exchange.stale}
        for settlement in exchange.stale:
            run = settlement.claimed
            whose = "an attempt's end" if run is None else f"the end of {run.job} {run.id[:8]} attempt {run.attempt}"
            self._log.warning(f"{whose} came too late and was not counted: {describe(settlement.outcome)}")
        self._log.settled([(a, s) for a, s in endings if a is not None and s.token not in stale])

    def _announce(self, *, at_once: bool = False) -> None:
        """Ring for what was committed, and log it; not too often."""
        now = time.monotonic()
        if self._unannounced is not None and (at_once or now >= self._rang_at + BELL_EVERY_S):
            self._log.flush()
            ring(self._bells, self._unannounced, skip=self._bell.path)
            self._unannounced, self._rang_at = None, now

    def _needed_at(self) -> float:
        """When (monotonic) our own thread has something to do unless woken; 0: now. Called with the lock held."""
        now = time.monotonic()
        times = [self._looked_at + BACKSTOP_S]
        if self._refused_until is not None:
            times.append(self._refused_until)
        elif self._due():
            return 0.0
        elif self._ended:
            times.append(max(self._ended_at + LINGER_S, self._pace.linger_until))
        if now < self._pace.linger_until or self._seats.reserved:  # then it may be over: they are to be hurried
            times.append(self._pace.linger_until)
        if self._unannounced is not None:
            times.append(self._rang_at + BELL_EVERY_S)
        if self._to_stop:
            times.append(self._stopped_at + BELL_EVERY_S)
        # What nothing can be done about, although it is due, must not keep us from sleeping.
        fires = self._scheduler is not None and not self._draining and now >= self._no_slots_until
        slot = self._scheduler.next_at if self._scheduler is not None and fires else None
        due = self._next_due if self._seats.free and self._may_claim() and self._refused_until is None else None
        if due is not None:  # nor is it claimed before those that are expected back
            times.append(max(now + _seconds_to(due), self._pace.linger_until))
        if slot is not None:
            times.append(now + _seconds_to(slot))
        elif self._no_slots_until > now:
            times.append(self._no_slots_until)
        return min(times)

    def _listen(self, store: Store) -> None:
        """Sleep until there may be something to do."""
        readable = select.poll()
        readable.register(self._bell.fileno(), select.POLLIN)
        readable.register(self._wake_r, select.POLLIN)
        while True:
            with self._lock:
                now = time.monotonic()
                # Who has the role sees to what is due, and wakes us after it where that isn't all. As long as one or
                # another has it, we look by ourselves: to be woken each time costs more.
                needed_at = now + LINGER_S if self._helping else self._needed_at()
                busy = now < self._exchanged_at + LINGER_S
                self._asleep_until = min(needed_at, now + LINGER_S) if busy else needed_at
            ready = dict(readable.poll(max(0.0, self._asleep_until - now) * 1000))
            with self._lock:
                self._asleep_until = 0.0
                now = time.monotonic()
                if now >= self._pace.linger_until:
                    self._seats.hurry()
                if ready or not (self._helping or self._needed_at() > now):
                    break
        self._hear(store, ready)

    def _hear(self, store: Store, ready: dict[int, int]) -> None:
        listened_at = time.monotonic()
        if self._wake_r in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_r, 4096)
        kinds = self._bell.drain() if self._bell.fileno() in ready else set()
        # Of a bell that is full the newest is lost, and it may have been the one that matters: others' events, however
        # many, don't put off a look of our own.
        late = listened_at >= self._looked_at + BACKSTOP_S
        if late:
            self._looked_at = listened_at
        if (kinds & {b"work", b"ask"} or late) and self._raised is None:
            with self._in_role():
                if kinds & {b"work", b"ask"} or _has_changed(store):
                    self._claimable = self._rung = True
                    self._look_for_requests(store)
        due = self._next_due
        if due is not None and due <= datetime.now(UTC):
            self._claimable = True
        if b"death" in kinds:
            self._events.someone_died()

    def _look_for_requests(self, store: Store) -> None:
        try:
            request, to_stop = store.asked(self.worker)
        except (StoreBusy, StoreFull):
            return  # the next change is looked at again
        self._to_stop |= {token for _, token in to_stop}
        if request is not None and not (request == "stop" and self._draining):
            self._events.asked(request)

    def _stop_revoked(self) -> None:
        """Stop what was revoked while running, as soon as the guard knows of it: between a claim and its start there
        is nothing to stop yet."""
        with self._lock:
            stoppable = {token: attempt for token, attempt in self._active.items() if not attempt.in_thread}
        self._to_stop = {
            token
            for token in self._to_stop & stoppable.keys()
            if not (stoppable[token].call_off("revoked") or self._guard().stop(token, "revoked"))
        }
        self._stopped_at = time.monotonic()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: it is awake already
            os.write(self._wake_w, b"x")


def _lets_go(attempt: Attempt | None, settlement: Settlement, definitions: Definitions) -> bool:
    """May something be claimed after this that couldn't before: this run again, or another of its job or queue?"""
    if isinstance(settlement.verdict, (Retry, Release)):
        return True
    return attempt is not None and definitions.limited(attempt.claim.run)


def _has_changed(store: Store) -> bool:
    try:
        return store.changed()
    except StoreBusy:  # a server that is gone for a moment: the next look finds out
        return False


def _seconds_to(at: datetime) -> float:
    return (at - datetime.now(UTC)).total_seconds()
