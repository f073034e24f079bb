"""What happened, counted from the event log: how runs ended in some time, and what is new behind some event.

The log and not the runs, for it is kept as long for each: where runs that succeeded are pruned after a week and failed
ones after a month, nearly all that is left of a month has failed.

No read lasts: the events of some time are gathered page by page into a table of the connection's own, which is on the
disk as far as it is large, and all that takes longer is asked of that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final

from hueyctl.errors import StoreReplaced, StoreUnreachable
from hueyctl.model.run import RunState
from hueyctl.storage.database import Database
from hueyctl.storage.reading import last_seq
from hueyctl.storage.rows import instant, micros
from hueyctl.storage.store import TOOK_AT_MOST_S, Ends, JobStats, Spread, Tally

# So many numbers of events are read at once: some tens of milliseconds.
PAGE: Final = 20_000
# Events stand in the order of their commits. What a clock that was set back, or a writer that waited for the lock, puts
# out of the order of time by less than this is found all the same.
CLOCK_MARGIN_US: Final = 60_000_000

NEXT: Final = "SELECT seq, time FROM events WHERE seq > ? ORDER BY seq LIMIT 1"
BOUNDS: Final = "SELECT (SELECT min(seq) FROM events), (SELECT max(seq) FROM events)"  # SQLite walks for both in one

# Times are in microseconds; `how` is the state in which a run ended, or 'retried' or 'lost'.
MAKE: Final = "CREATE TEMP TABLE ends (job TEXT NOT NULL, how TEXT, waited BIGINT, took BIGINT)"
INDEXES: Final = (
    "CREATE INDEX ends_took ON ends (took)",
    "CREATE INDEX ends_waited ON ends (waited)",
    "CREATE INDEX ends_of_job_took ON ends (job, took)",
    "CREATE INDEX ends_of_job_waited ON ends (job, waited)",
)
# By its full name: without it, where there is none yet, it might be a table of somebody else's.
DROP: Final = "DROP TABLE IF EXISTS temp.ends"

_TERMINAL: Final = "('succeeded', 'failed', 'revoked', 'expired', 'skipped')"
_ENDS: Final = "('complete', 'failed', 'revoked', 'expired', 'skipped')"
# The end of an attempt tells how long it took, and comes before the end of its run: only 'complete' is both. A
# pipeline's own run has no attempts; of a run that has begun again since, the times are another attempt's.
GATHER: Final = f"""
INSERT INTO ends
SELECT event.job,
    CASE WHEN event.type IN {_ENDS} THEN event.state WHEN event.type = 'retrying' THEN 'retried'
         WHEN event.type = 'lost' THEN 'lost' END,
    CASE WHEN event.type IN {_ENDS} AND run.started_at >= run.due_at THEN run.started_at - run.due_at END,
    CASE WHEN event.pipeline = event.run THEN run.finished_at - run.started_at
         WHEN event.state IN {_TERMINAL} THEN CAST(round(json_extract(event.data, '$.duration_s') * 1e6) AS BIGINT) END
FROM events AS event LEFT JOIN runs AS run
    ON run.n = event.n AND run.id = event.run AND run.attempt = coalesce(event.attempt, 0)
    AND run.finished_at IS NOT NULL
WHERE event.seq > ?1 AND event.seq <= ?2 AND event.time >= ?3 AND event.time < ?4 AND event.run IS NOT NULL
    AND (event.type IN {_ENDS} OR event.type IN ('retrying', 'lost')
        OR (event.type IN ('error', 'timeout', 'canceled', 'interrupted') AND event.state IN {_TERMINAL}))
    AND (event.job = ?5 OR (CAST(?5 AS TEXT) IS NULL AND (event.pipeline IS NULL OR event.pipeline <> event.run)))
"""

ENDS_BY_SECOND: Final = f"""
SELECT time - time % 1000000, state, count(*) FROM events
WHERE seq > ? AND seq <= ? AND time >= ? AND run IS NOT NULL AND type IN {_ENDS}
    AND (pipeline IS NULL OR pipeline <> run)
GROUP BY 1, 2
"""

_TOOK_CLASS: Final = " ".join(f"WHEN took <= {most} THEN {index}" for index, most in enumerate(TOOK_AT_MOST_S))
TALLY: Final = f"""
SELECT type, job, schedule, CASE {_TOOK_CLASS} WHEN took IS NOT NULL THEN {len(TOOK_AT_MOST_S)} END,
    count(*), sum(took)
FROM (
    SELECT type, job, schedule, json_extract(data, '$.duration_s') AS took FROM events WHERE seq > ? AND seq <= ?
) AS event
GROUP BY 1, 2, 3, 4
"""

COUNTED: Final = ("succeeded", "failed", "other", "retried", "lost")
COUNTS: Final = """
SELECT job, count(*) FILTER (WHERE how = 'succeeded'), count(*) FILTER (WHERE how = 'failed'),
    count(*) FILTER (WHERE how IN ('revoked', 'expired', 'skipped')), count(*) FILTER (WHERE how = 'retried'),
    count(*) FILTER (WHERE how = 'lost')
FROM ends WHERE how IS NOT NULL GROUP BY job ORDER BY job
"""


def stats(database: Database, *, since: datetime, until: datetime, job: str | None) -> list[JobStats]:
    """`Store.stats`."""
    with _gathered(database, micros(since), micros(until), job):
        rows = database.all(COUNTS)
        total = (None, *(sum(row[column] for row in rows) for column in range(1, 1 + len(COUNTED))))
        return [
            JobStats(
                job=job,
                **dict(zip(COUNTED, counts, strict=True)),
                waited=_spread(database, job, "waited"),
                took=_spread(database, job, "took"),
            )
            for job, *counts in (*rows, total)
        ]


def ends(database: Database, *, since: datetime, after: int | None) -> Ends:
    """`Store.ends`."""
    counts: Counter[tuple[datetime, RunState]] = Counter()
    last = last_seq(database)
    if after is None:
        after = _seq_before(database, micros(since) - CLOCK_MARGIN_US)
    for begin, end in _pages(database, after, last):
        for second, state, count in database.all(ENDS_BY_SECOND, begin, end, micros(since)):
            counts[instant(second), RunState(state)] += count
    return Ends(last, counts)


def tally(database: Database, *, after: int) -> Tally:
    """`Store.tally`."""
    last = last_seq(database)
    events: Counter[tuple[str, str | None, str | None]] = Counter()
    many: Counter[tuple[str, int]] = Counter()
    seconds: dict[tuple[str, int], float] = {}
    for begin, end in _pages(database, after, last):
        for type, job, schedule, took_class, count, took in database.all(TALLY, begin, end):
            events[type, job, schedule] += count
            if took_class is not None and job is not None:
                many[job, took_class] += count
                seconds[job, took_class] = seconds.get((job, took_class), 0.0) + took
    return Tally(last, events, {key: (count, seconds[key]) for key, count in many.items()})


@contextmanager
def _gathered(database: Database, since: int, until: int, job: str | None) -> Iterator[None]:
    """In the block the table `ends` has what ended in that time, in order of each of its times."""
    database.run(DROP)
    database.run(MAKE)
    try:
        after, last = _seq_before(database, since - CLOCK_MARGIN_US), _seq_before(database, until + CLOCK_MARGIN_US)
        for begin, end in _pages(database, after, last):
            database.run(GATHER, begin, end, since, until, job)
        for index in INDEXES:
            database.run(index)
        yield
    except StoreReplaced as exc:
        database.data_version()  # raises it again, if it is so
        # With the connection to a server its table went, and another one was made in the midst of this.
        raise StoreUnreachable("the connection to the store was lost in the middle", hint="try again") from exc
    finally:
        database.run(DROP)


def _pages(database: Database, after: int, last: int) -> Iterator[tuple[int, int]]:
    """The events behind `after` up to `last`, a page after the other: behind which number it begins, and its last."""
    while after < last:
        yield after, min(after + PAGE, last)
        found = database.one(NEXT, after + PAGE)  # numbers have gaps: of a million after a crash of the machine
        after = last if found is None else found[0] - 1


def _seq_before(database: Database, at: int) -> int:
    """The number of the last event before that time (of none: one below the first), by halving: `time` has no index."""
    low, high = database.all(BOUNDS)[0]
    if low is None:
        return 0
    low -= 1
    while low < high:
        middle = (low + high) // 2
        seq, time = database.all(NEXT, middle)[0]
        low, high = (low, middle) if time >= at else (seq, high)
    return int(low)


def _spread(database: Database, job: str | None, times: str) -> Spread | None:
    """Of the times in this column, for a job or for all (None)."""
    # One condition or the other, not both in one: each has an index that gives the times in their order.
    whose, values = ("", ()) if job is None else ("job = ? AND ", (job,))
    where = f"FROM ends WHERE {whose}{times} IS NOT NULL"
    count = database.all(f"SELECT count(*) {where}", *values)[0][0]
    if not count:
        return None
    ranks = (-(-count * percent // 100) for percent in (50, 95, 100))  # rounded up
    at = f"SELECT {times} {where} ORDER BY {times} LIMIT 1 OFFSET ?"
    return Spread(*(database.all(at, *values, rank - 1)[0][0] / 1e6 for rank in ranks))
