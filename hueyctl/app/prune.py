"""Deleting what is past its retention now, not when a worker gets to it."""

from __future__ import annotations

from datetime import datetime
from itertools import chain

from hueyctl.app.session import Session
from hueyctl.model.definition import Retention
from hueyctl.storage.tidying import Tidied, orphan_steps, prunable, prune_steps


def prune(session: Session, retention: Retention, *, now: datetime) -> Tidied:
    """Delete ended runs with their output, and events, past `retention`; and output folders of no run, a day old.

    Raises:
        StoreError: the store can't be written; what was deleted before that stays deleted.
    """
    store, place = session.writer(), session.place
    steps = chain(prune_steps(store, place, retention, now=now), orphan_steps(store, place, now=now))
    return sum(steps, Tidied())


def would_prune(session: Session, retention: Retention, *, now: datetime) -> Tidied:
    """What `prune` would delete; counting events reads all of them."""
    return prunable(session.reader(), session.place, retention, now=now)
