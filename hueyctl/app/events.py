"""The event log: read, and followed without a gap or a repeat."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial

import msgspec

from hueyctl.app.session import Session
from hueyctl.app.watch import BACKSTOP_S, Watch
from hueyctl.errors import StoreMissing, UsageError
from hueyctl.model.event import Event, EventType
from hueyctl.model.mask import Mask
from hueyctl.model.wording import did_you_mean, quoted
from hueyctl.storage.store import EventFilter, Store

PAGE = 500


def parse_types(texts: Sequence[str] | None) -> tuple[str, ...] | None:
    """The event types that users named, with commas or one by one; raises UsageError with the nearest one."""
    words = [word for text in texts or () for word in text.split(",") if word]
    known = [kind.value for kind in EventType]
    for word in words:
        if word not in known:
            message = f"there is no event type {quoted(word)}{did_you_mean(word, known)}"
            raise UsageError(message, hint=f"types are {', '.join(known)}")
    return tuple(dict.fromkeys(words)) or None


def last_events(session: Session, where: EventFilter, *, limit: int) -> list[Event]:
    """The newest `limit` that match, in order of seq, secrets masked."""
    return _Masks(session).apply(session.reader().last_events(where, limit=limit))


def events_after(
    session: Session, where: EventFilter, *, after: int, limit: int | None = None
) -> Iterator[list[Event]]:
    """Those that match from the first after `after` on, in pages, up to `limit` of them; secrets masked."""
    store, masks, left = session.reader(), _Masks(session), limit
    while left is None or left > 0:
        page = store.events(where, after=after, limit=PAGE if left is None else min(PAGE, left))
        if not page:
            return
        yield masks.apply(page)
        after = page[-1].seq
        left = None if left is None else left - len(page)


def follow(
    session: Session, where: EventFilter, *, after: int | None, last: int, output: int | None = None
) -> Iterator[list[Event]]:
    """First what matches after `after` (None: the last `last`), then each event as it happens, for ever.

    Reads page by page and keeps no transaction open, so that it neither stops the store's upkeep nor is disturbed by
    it; pruned events are passed over, since seq only grows. Waits for the store where there is none yet.

    Raises:
        BrokenPipeError: nobody reads the descriptor `output` any more.
    """
    store = None
    while store is None:
        try:
            store = session.reader()
        except StoreMissing:
            after = 0 if after is None else after  # all that a new store gets is new
            time.sleep(BACKSTOP_S / 5)
    masks = _Masks(session)
    with Watch(session, output=output) as watch:
        if after is None:
            after = store.last_seq()
            first = [event for event in store.last_events(where, limit=last) if event.seq <= after] if last else []
            if first:
                yield masks.apply(first)
        while True:
            # Read before the page: whatever has a seq up to it is committed, and the page shows it or it doesn't match.
            newest = watch.ask(store.last_seq)
            page = watch.ask(partial(_page, store, masks, where, after))
            if page:
                yield page
            if len(page) == PAGE:
                after = page[-1].seq
                continue
            after = max(after, newest, page[-1].seq if page else 0)
            while watch.ask(store.last_seq) <= after:
                watch.wait()


def _page(store: Store, masks: _Masks, where: EventFilter, after: int) -> list[Event]:
    return masks.apply(store.events(where, after=after, limit=PAGE))


class _Masks:
    """Masks events' data by the secrets of their runs, remembered for the last thousand runs."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._known: dict[str, Mask] = {}

    def apply(self, events: Sequence[Event]) -> list[Event]:
        return [self._masked(event) for event in events]

    def _masked(self, event: Event) -> Event:
        if event.run is None or not any(isinstance(value, str | list | dict) for value in event.data.values()):
            return event
        mask = self._of(event.run)
        return msgspec.structs.replace(event, data=mask.value(event.data)) if mask else event

    def _of(self, id: str) -> Mask:
        mask = self._known.get(id)
        if mask is None:
            run = self._session.reader().get(id)
            mask = self._session.mask(run) if run else Mask()
            if len(self._known) >= 1000:
                self._known.clear()
            self._known[id] = mask
        return mask
