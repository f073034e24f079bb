"""The Python API: a queue that an application enqueues into, waits at, and looks into.

Promises:

- What `enqueue` has returned is durable, and will be run by a worker, whichever process that is.
- A `Queue` may be shared by threads and used on after a fork: each thread of each process has a connection of its own.
- Every error is a `HueyctlError` (see `hueyctl.errors`), with the message that the command line would give.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hueyctl.app import backup, changes, events, finding, wait
from hueyctl.app import enqueue as enqueueing
from hueyctl.app.clock import utc_now
from hueyctl.app.order import due, duration
from hueyctl.app.public import PublicRun as Run
from hueyctl.app.public import public_of
from hueyctl.app.session import Session, open_session
from hueyctl.errors import NotFound, Refused, UsageError
from hueyctl.model.event import Event
from hueyctl.model.order import Order, defined
from hueyctl.storage.store import EventFilter

__all__ = ["Event", "Queue", "Run", "open_queue"]

Duration = timedelta | float | str
"""A span of time: a timedelta, seconds, or text like `"1h30m"`."""

_OPTIONS = ("priority", "queue", "delay", "at", "retries", "timeout", "expires", "id")


def open_queue(file: str | os.PathLike[str] | None = None) -> Queue:
    """The queue of this `jobs.toml`; without one, HUEYCTL_FILE, or jobs.toml in the working folder or a parent of it.

    The file is read once, now. The store is made by the first `enqueue`.

    Raises:
        ConfigError: there is no such file, or something in it is wrong; `problems` has all of it.
    """
    return Queue(open_session(None if file is None else Path(file), cwd=Path.cwd(), environ=os.environ))


class Queue:
    """The jobs and pipelines of one `jobs.toml` and the store that their runs are in. Made by `open_queue`."""

    def __init__(self, session: Session) -> None:
        self._project = session.project
        self._by = session.by
        self._local = threading.local()

    @property
    def jobs(self) -> tuple[str, ...]:
        """The names of the jobs that it defines."""
        return tuple(self._project.jobs)

    @property
    def pipelines(self) -> tuple[str, ...]:
        """The names of the pipelines that it defines."""
        return tuple(self._project.pipelines)

    def enqueue(
        self,
        job: str,
        params: Mapping[str, object] | None = None,
        /,
        *,
        priority: int | None = None,
        queue: str | None = None,
        delay: Duration | None = None,
        at: datetime | None = None,
        retries: int | None = None,
        timeout: Duration | None = None,
        expires: Duration | None = None,
        id: str | None = None,
        **more_params: object,
    ) -> Run:
        """Enqueue a run of `job` (a job's name, or a pipeline's), durably, and return it.

        Parameters are given as a mapping, by keyword, or both: `enqueue("fetch", {"url": url}, priority=10)` or
        `enqueue("fetch", url=url)`. A parameter that is called like an option here goes into the mapping.

        `at` is an aware datetime, `delay` counts from now, and `expires` from when the run is due. An `id` (a UUID)
        that was given before, with the same job and parameters, returns the run that it named.

        Raises:
            NotFound: there is no such job or pipeline.
            UsageError: a parameter is missing, unknown or wrong (the message names all), or an option is.
            Refused: `id` is taken by a run of another job or with other parameters.
            StoreError: the store can't be used; nothing was enqueued.
        """
        options = dict(zip(_OPTIONS, (priority, queue, delay, at, retries, timeout, expires, id), strict=True))
        values = self._params(job, params, more_params, [name for name in options if options[name] is not None])
        now = datetime.now(UTC)
        order = Order(
            job=job,
            params=values,
            priority=priority,
            queue=queue,
            due_at=_due(delay, at, now),
            retries=retries,
            timeout=duration("timeout", timeout),
            expires=duration("expires", expires),
            id=id,
        )
        return enqueueing.enqueue(self._session(), order, now=now).run

    def run(
        self,
        job: str,
        params: Mapping[str, object] | None = None,
        /,
        *,
        wait_timeout: Duration | None = None,
        **more: Any,
    ) -> Run:
        """Enqueue a run, wait for its end, and return it; takes what `enqueue` takes.

        Raises:
            RunFailed: it did not succeed; the message has the reason.
            WaitTimeout: it has not ended after `wait_timeout`; it goes on.
            Everything that `enqueue` raises.
        """
        ended = self.wait(self.enqueue(job, params, **more), timeout=wait_timeout)
        if not ended.succeeded:
            raise wait.failure(self._session(), ended)
        return ended

    def wait(self, run: str | Run, *, timeout: Duration | None = None) -> Run:
        """The run when it has ended, however it ended: see its `state`. What it says can't come undone any more.

        Raises:
            WaitTimeout: it has not ended after `timeout`; it goes on.
            NotFound: there is no such run.
        """
        session = self._session()
        return next(wait.wait(session, [self._id(session, run)], timeout=duration("timeout", timeout)))

    def get(self, run: str | Run) -> Run | None:
        """The run as it is now, by its id, a unique beginning of it, a job's name (its newest) or `last`; or None.

        Raises:
            UsageError: it begins several ids.
        """
        session = self._session()
        try:
            found = finding.find_run(session, run if isinstance(run, str) else run.id)
        except NotFound:
            return None
        return public_of(session, found)

    def revoke(self, run: str | Run, *, kill: bool = False, timeout: Duration | None = None) -> Run:
        """Never let a run start; with `kill`, stop it where it runs and return when it has stopped.

        Raises:
            Refused: it runs and `kill` is false, or it had ended before it could be revoked.
            WaitTimeout: it has not stopped after `timeout`. It stays revoked: no other attempt will follow.
            NotFound: there is no such run.
        """
        session = self._session()
        found = finding.find_runs(session, [self._id(session, run)])
        patience = duration("timeout", timeout)
        (effect,) = changes.revoke(session, [found], kill=kill, timeout=patience, clock=utc_now)
        if effect.refusal is not None:
            hint = "revoke it with kill=True" if effect.hint else None
            raise Refused(f"run {effect.run.id[:8]} of {effect.run.job} {effect.refusal}", hint=hint)
        return effect.run

    def events(
        self,
        *,
        after: int = 0,
        types: Iterable[str] | None = None,
        job: str | None = None,
        run: str | Run | None = None,
        follow: bool = False,
    ) -> Iterator[Event]:
        """The events behind the one whose seq is `after`, in order; with `follow` also those to come, for ever.

        Resuming with the seq of the last event that was seen misses none and repeats none.
        """
        session = self._session()
        where = EventFilter(
            types=events.parse_types(None if types is None else list(types)),
            job=job,
            run=None if run is None else self._id(session, run),
        )
        if follow:
            pages = events.follow(session, where, after=after, last=0)
        else:
            pages = events.events_after(session, where, after=after)
        for page in pages:
            yield from page

    def backup(self, file: str | os.PathLike[str], *, replace: bool = False) -> backup.Backup:
        """Copy the store into one file, consistently, while workers go on; what runs have printed is not in it.

        Raises:
            Refused: `file` is there and `replace` is false, or it can't be written; nothing is left of it.
            StoreDamaged: the store is damaged; no copy is kept.
        """
        return backup.back_up(self._session(), Path(file), replace=replace)

    def close(self) -> None:
        """Close this thread's connection; those of other threads are closed when the threads end."""
        held = getattr(self._local, "held", None)
        if held is not None:
            held.close()
            del self._local.held

    def __enter__(self) -> Queue:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _session(self) -> Session:
        held: _Held | None = getattr(self._local, "held", None)
        if held is None or held.pid != os.getpid():
            if held is not None:
                # After a fork the parent's connection must be neither used nor closed here: closing it would drop locks
                # that SQLite believes to hold.
                _FORKED.append(held.session)
            held = self._local.held = _Held(Session(self._project, by=self._by))
        return held.session

    def _id(self, session: Session, run: str | Run) -> str:
        return finding.find_run(session, run).id if isinstance(run, str) else run.id

    def _params(
        self, job: str, params: Mapping[str, object] | None, more: Mapping[str, object], options: list[str]
    ) -> Mapping[str, object]:
        if params is None:
            # Taking a parameter for an option in silence is the trap of Huey's own `s(**kwargs)`.
            meant = [name for name in options if defined(self._project, job).param(name)]
            if meant:
                message = f"{meant[0]} is an option of enqueue and a parameter of {job}"
                raise UsageError(message, hint=f'give parameters as a mapping: enqueue("{job}", {{"{meant[0]}": …}})')
            return more
        twice = [name for name in more if name in params]
        if twice:
            raise UsageError(f"the parameter {twice[0]} is given twice")
        return {**params, **more}


_FORKED: list[Session] = []


class _Held:
    """A thread's session; closed with the thread, but only in the process that opened it."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.pid = os.getpid()

    def close(self) -> None:
        """Close the connection, if it is this process's."""
        if self.pid == os.getpid():
            self.session.close()

    def __del__(self) -> None:
        self.close()


def _due(delay: Duration | None, at: datetime | None, now: datetime) -> datetime | None:
    if at is None:
        return due(delay, None, now=now, timezone="UTC")
    if delay is not None:
        raise UsageError("delay and at: only one of them can be given")
    if at.tzinfo is None:
        raise UsageError("at: expected a datetime with a time zone", hint="datetime.now(UTC), or .astimezone()")
    return max(now, at.astimezone(UTC))
