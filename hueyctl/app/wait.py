"""Waiting for runs to end. What is waited for goes on, however the wait ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from datetime import timedelta
from time import monotonic

from hueyctl.app.public import PublicRun, public_of
from hueyctl.app.session import Session
from hueyctl.app.watch import Watch
from hueyctl.errors import NotFound, RunFailed, WaitTimeout
from hueyctl.model.outcome import NOT_STARTED
from hueyctl.model.run import TERMINAL, Run


def wait(session: Session, ids: Sequence[str], *, timeout: timedelta | None = None) -> Iterator[PublicRun]:
    """Each of these runs when it has ended, in the order given; what is reported can't come undone any more.

    Raises:
        WaitTimeout: `timeout` has passed first.
        NotFound: a run is not there (any more: its retention has passed).
    """
    deadline = None if timeout is None else monotonic() + timeout.total_seconds()
    store, pending, ended = session.reader(), deque(ids), list[PublicRun]()
    with Watch(session) as watch:
        while pending:
            # Only the first is looked at: waiting for a hundred thousand costs no more than waiting for one.
            run = watch.ask(lambda: store.get(pending[0]), deadline)
            if run is None:
                raise NotFound(f"there is no run {pending[0]} (any more)")
            if run.state in TERMINAL:
                ended.append(public_of(session, run))
                pending.popleft()
                if pending and len(ended) < 1000:
                    continue
            if ended:
                session.make_durable()
                yield from ended
                ended.clear()
            elif not watch.wait(deadline):
                short = pending[0][:8]
                hint = f"it goes on: `hueyctl wait {short}`"
                raise WaitTimeout(f"run {short} is still {run.state}", hint=hint)


def failure(session: Session, run: PublicRun) -> RunFailed:
    """The error that says on one line how an ended run failed, and where to read on: of a pipeline, at its first step
    that ended so."""
    how, reason = _VERBS[run.state], run.reason or ""
    # Reasons say it too: "revoked by ada@host".
    how += reason[len(run.state) :] if reason.startswith(run.state) else f": {reason}" if reason else ""
    told: Run | PublicRun = run
    if run.is_pipeline:
        ended_so = (step.run for step in session.reader().steps(run.id) if step.run.state is run.state)
        told = next(ended_so, told)
    started = told.attempt and not (told.reason or "").startswith(NOT_STARTED)
    read_on = "logs" if started else "inspect"  # what never started has printed nothing
    return RunFailed(f"run {run.id[:8]} of {run.job} {how}", hint=f"hueyctl {read_on} {told.id[:8]}")


_VERBS = {
    "failed": "failed",
    "revoked": "was revoked",
    "expired": "expired",
    "skipped": "was skipped",
}
