"""Deleting what is past its retention, with what runs printed: in small steps, and giving way to others after each."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from hueyctl.model.definition import Retention
from hueyctl.storage.place import Place
from hueyctl.storage.store import Store

STEP: Final = 500
# Younger ones may be of a run that is just being made.
ORPHAN_AGE: Final = timedelta(days=1)
# At most so long after each step: whoever waits for the write lock looks again within milliseconds.
LONGEST_PAUSE_S: Final = 0.05
_RUN_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Tidied(msgspec.Struct, frozen=True):
    """What was deleted (or would be): runs with their output, events, and output folders that belong to no run."""

    runs: int = 0
    events: int = 0
    folders: int = 0

    def __add__(self, other: Tidied) -> Tidied:
        return Tidied(self.runs + other.runs, self.events + other.events, self.folders + other.folders)


def prune_steps(store: Store, place: Place, retention: Retention, *, now: datetime) -> Iterator[Tidied]:
    """Delete what is past its retention at `now`, one transaction a step.

    SQLite's write lock goes to whoever asks first when it is free: without a pause as long as the step, a worker that
    has to prune thousands of runs a second would keep everybody else from writing.
    """
    more = True
    while more:
        began = time.monotonic()
        pruned = store.prune(retention, now=now, limit=STEP)
        took_s = time.monotonic() - began
        for run in pruned.runs:
            shutil.rmtree(place.output / run, ignore_errors=True)
        yield Tidied(runs=len(pruned.runs), events=pruned.events)
        more = pruned.more
        if more:
            time.sleep(min(took_s, LONGEST_PAUSE_S))


def orphan_steps(store: Store, place: Place, *, now: datetime) -> Iterator[Tidied]:
    """Delete output folders that no run has any more, as a process that died while pruning leaves them."""
    for names in _orphans(store, place, now):
        for name in names:
            shutil.rmtree(place.output / name, ignore_errors=True)
        yield Tidied(folders=len(names))


def prunable(store: Store, place: Place, retention: Retention, *, now: datetime) -> Tidied:
    """What `prune_steps` and `orphan_steps` would delete now."""
    runs, events = store.prunable(retention, now=now)
    return Tidied(runs=runs, events=events, folders=sum(map(len, _orphans(store, place, now))))


def _orphans(store: Store, place: Place, now: datetime) -> Iterator[list[str]]:
    """The names of folders without a run, out of every `STEP` that are looked at."""
    try:
        entries = os.scandir(place.output)
    except OSError:
        return
    with entries:
        looked_at, found = 0, list[str]()
        for entry in entries:
            looked_at += 1
            if _is_orphan(entry, store, now):
                found.append(entry.name)
            if looked_at == STEP:
                yield found
                looked_at, found = 0, []
        yield found


def _is_orphan(entry: os.DirEntry[str], store: Store, now: datetime) -> bool:
    if not _RUN_ID.fullmatch(entry.name) or not entry.is_dir(follow_symlinks=False):
        return False  # whatever it is, it is not ours
    try:
        changed = datetime.fromtimestamp(entry.stat(follow_symlinks=False).st_mtime, UTC)
    except (OSError, OverflowError, ValueError):
        return False
    return now - changed > ORPHAN_AGE and store.get(entry.name) is None
