"""What runs printed, as it is on the disk or as it comes, and what they returned. Secrets are masked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial, wraps
from itertools import chain
from pathlib import Path
from typing import Literal, ParamSpec

import msgspec

from hueyctl.app.elsewhere import bring
from hueyctl.app.events import events_after
from hueyctl.app.public import PublicRun, public_of
from hueyctl.app.session import Session
from hueyctl.app.wait import failure
from hueyctl.app.watch import Watch
from hueyctl.errors import NotFound, Refused, StoreError
from hueyctl.model.event import REMARKS
from hueyctl.model.handover import as_bytes
from hueyctl.model.mask import Mask, MaskedStream
from hueyctl.model.run import TERMINAL, Run, RunState
from hueyctl.process.output import OutputReader, tail_lines
from hueyctl.storage.store import EventFilter

P = ParamSpec("P")
Stream = Literal["stdout", "stderr"]
BOTH: tuple[Stream, ...] = ("stdout", "stderr")

# A follower reads the files; nobody rings for a line that a job prints.
_LOOK_S = 0.1


class Chunk(msgspec.Struct, frozen=True):
    """A piece of what an attempt printed, secrets masked, in no particular relation to lines."""

    attempt: int
    stream: Stream
    data: bytes


def _told(read: Callable[P, Iterator[Chunk]]) -> Callable[P, Iterator[Chunk]]:
    """What can't be read is a StoreError that names the file."""

    @wraps(read)
    def told(*args: P.args, **options: P.kwargs) -> Iterator[Chunk]:
        try:
            yield from read(*args, **options)
        except BrokenPipeError:
            raise
        except OSError as exc:
            raise StoreError(f"{exc.filename}: {exc.strerror}", hint="a store belongs to one user") from exc

    return told


@_told
def read_logs(
    session: Session, run: Run, *, attempt: int | None, streams: tuple[Stream, ...] = BOTH, last: int | None = None
) -> Iterator[Chunk]:
    """What an attempt (None: the newest) has printed so far: all of it, or the last `last` lines of each stream.

    Raises:
        NotFound: the run had no such attempt.
        StoreError: it can't be read.
    """
    number = _attempt(run, attempt)
    bring(session, run, number)
    mask = session.mask(run)
    for stream in streams if number else ():
        if last is not None:
            masked = mask.stream()
            data = masked.feed(tail_lines(_path(session, run.id, number, stream), last))
            data += masked.end() if _is_over(session.reader().get(run.id), number) else b""
            if data:
                yield Chunk(number, stream, data)
            continue
        pipe = _Pipe(session, run, number, stream, mask.stream())
        yield from pipe.read()
        if _is_over(session.reader().get(run.id), number):  # otherwise its last words may be half of a secret
            yield from pipe.end()


@_told
def follow_logs(
    session: Session,
    run: Run,
    *,
    attempt: int | None,
    streams: tuple[Stream, ...] = BOTH,
    last: int | None = None,
    output: int | None = None,
) -> Iterator[Chunk]:
    """The same, and then what comes, until the run has ended (or the attempt that was named).

    Raises:
        NotFound: the run had no such attempt.
        BrokenPipeError: nobody reads the descriptor `output` any more.
    """
    number = _attempt(run, attempt)
    mask, store = session.mask(run), session.reader()
    with Watch(session, output=output) as watch:
        watch.ask(partial(bring, session, run, number))
        pipes = _pipes(session, run, number, streams, mask)
        if last is not None:
            for pipe in pipes:
                yield from pipe.last_lines(last)
        while True:
            # Looked at before its output: what is there when a run has ended is all there is.
            now = watch.ask(partial(store.get, run.id))
            over = _is_over(now, number)
            if over:
                watch.ask(partial(bring, session, run, number))
            for pipe in pipes:
                yield from pipe.read()
            if over:
                for pipe in pipes:
                    yield from pipe.end()
                pipes = []
                if now is not None and attempt is None and now.attempt > number:
                    number += 1
                    pipes = _pipes(session, run, number, streams, mask)
                    continue
                if now is None or now.state in TERMINAL or attempt is not None:
                    return
            watch.wait(backstop_s=_LOOK_S)


def remarks_of(session: Session, run: Run, attempt: int) -> list[str]:
    """What is to be said of an attempt besides its outcome, as far back as the event log goes."""
    events = chain.from_iterable(events_after(session, EventFilter(run=run.id), after=0))
    return [each.data[name] for each in events if each.attempt == attempt for name in REMARKS if name in each.data]


def read_result(session: Session, run: Run) -> tuple[PublicRun, bytes | None]:
    """A succeeded run and its result as it was printed or returned, secrets masked (None: it has none). That of a
    pipeline is its last step's; where several end it, a JSON list.

    Raises:
        Refused: it has not ended, or its result could not be kept.
        RunFailed: it has ended, and not well.
    """
    shown = public_of(session, run)
    if run.state not in TERMINAL:
        raise Refused(f"run {run.id[:8]} is {run.state}: it has no result yet", hint=f"hueyctl wait {run.id[:8]}")
    if run.state is not RunState.SUCCEEDED:
        raise failure(session, shown)
    session.make_durable()
    if shown.result_error:
        raise Refused(f"run {run.id[:8]}: {shown.result_error}", hint=f"hueyctl logs {run.id[:8]}")
    result = run.result
    if run.is_pipeline:
        inputs = session.reader().inputs(run)
        only = len(inputs) == 1 and inputs[0]
        result = only.result if only else as_bytes(inputs, session.project.jobs)
    return shown, None if result is None else session.mask(run).whole(result)


class _Pipe:
    """One stream of one attempt, read on and masked."""

    def __init__(self, session: Session, run: Run, attempt: int, stream: Stream, mask: MaskedStream) -> None:
        self._attempt, self._stream, self._mask = attempt, stream, mask
        self._reader = OutputReader(_path(session, run.id, attempt, stream))

    def last_lines(self, count: int) -> Iterator[Chunk]:
        """The last lines of what is there by now. Read to its end, so that `read` goes on where this stopped."""
        data = b"".join(chunk.data for chunk in self.read())
        lines = data.splitlines(keepends=True)[-count:] if count else []
        if lines:
            yield Chunk(self._attempt, self._stream, b"".join(lines))

    def read(self) -> Iterator[Chunk]:
        while data := self._reader.read():
            if shown := self._mask.feed(data):
                yield Chunk(self._attempt, self._stream, shown)

    def end(self) -> Iterator[Chunk]:
        if shown := self._mask.end():
            yield Chunk(self._attempt, self._stream, shown)


def _is_over(now: Run | None, attempt: int) -> bool:
    """Has this attempt of a run, as that is `now`, ended?"""
    return now is None or now.attempt != attempt or now.state is not RunState.RUNNING


def _pipes(session: Session, run: Run, attempt: int, streams: tuple[Stream, ...], mask: Mask) -> list[_Pipe]:
    return [_Pipe(session, run, attempt, stream, mask.stream()) for stream in streams] if attempt else []


def _path(session: Session, run: str, attempt: int, stream: Stream) -> Path:
    return session.place.stdout(run, attempt) if stream == "stdout" else session.place.stderr(run, attempt)


def _attempt(run: Run, attempt: int | None) -> int:
    if attempt is None:
        return run.attempt
    if not 1 <= attempt <= run.attempt:
        had = {0: "has not started yet", 1: "had 1 attempt"}.get(run.attempt, f"had {run.attempt} attempts")
        raise NotFound(f"there is no attempt {attempt} of run {run.id[:8]}: it {had}")
    return attempt
