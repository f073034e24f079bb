"""Hooks in the store: the run that follows an end is written in the transaction of that end.

So it is never lost and never twice: the fence that lets an attempt end once lets its hook follow once.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from hueyctl.model.event import EventType
from hueyctl.model.hook import Hook, Occasion
from hueyctl.model.mask import Mask
from hueyctl.model.run import Run
from hueyctl.storage import changes
from hueyctl.storage.database import Database
from hueyctl.storage.log import Log
from hueyctl.storage.rows import instant, maybe_micros, message_from

MESSAGES: Final = "SELECT message FROM runs WHERE pipeline = ? AND pipeline IS NOT NULL"


def follow(database: Database, log: Log) -> bool:
    """Make the runs that what `log` tells of calls for, when it has been written; was one made?

    Where such a run can't be made, what it was to follow stands all the same, and its event says why there is none.
    """
    made = [_follow(database, hook, occasion, log) for hook, occasion in log.occasions]
    log.opened |= any(made)
    return any(made)


def _follow(database: Database, hook: Hook, occasion: Occasion, log: Log) -> bool:
    if occasion.run is not None:
        occasion = msgspec.structs.replace(occasion, mask=_mask(database, occasion.run))
    try:
        new = hook(occasion)
    except Exception as exc:  # whatever it is, no attempt may fail to end for it
        _tell(database, occasion, log, {"reason": f"nothing was enqueued: {exc}"})
        return False
    if new is None:
        return False
    standing = changes.live_of_key(database, new.unique_key)
    told: dict[str, Any] = {"job": new.job, "run": standing.id if standing else new.id}
    _tell(database, occasion, log, {**told, "existing": True} if standing else told)
    if standing is None:
        cause = f"run {occasion.run.id}" if occasion.run else f"schedule {occasion.schedule}"
        its_own = Log(log.time, cause)
        changes.take_in(database, new, now=instant(log.time), log=its_own)
        its_own.write(database)
    return standing is None


def _mask(database: Database, run: Run) -> Mask:
    """A step prints what it was handed, and its reason may be another's."""
    if run.pipeline is None:
        return Mask.of(run)
    return Mask.of_messages(message_from(text) for (text,) in database.all(MESSAGES, run.pipeline))


def _tell(database: Database, occasion: Occasion, log: Log, data: dict[str, Any]) -> None:
    told, data = Log(log.time, log.by), {"on": occasion.key, **data}
    if occasion.run is not None:
        told.run(occasion.run, EventType.HOOK, occasion.run.state, data)
    else:
        slot = maybe_micros(occasion.slot)
        told.other(EventType.HOOK, job=occasion.job, schedule=occasion.schedule, slot=slot, data=data)
    told.write(database)
