"""What a doctor asks of a store: what SQLite finds, and whether its own counts are right. Nothing is changed."""

from __future__ import annotations

from collections import Counter
from typing import Final

import msgspec

from hueyctl.storage.database import Database
from hueyctl.storage.log import STANDING
from hueyctl.storage.sqlite_database import SqliteDatabase

# Three more say as little as three thousand.
MOST_ERRORS: Final = 10
COUNTED: Final = "SELECT queue, job, state, count FROM lines WHERE count <> 0"
# A pipeline's own run stands in no line.
STANDING_RUNS: Final = """
SELECT queue, job, state, count(*) FROM runs WHERE state IN ({}) AND (pipeline IS NULL OR position IS NOT NULL)
GROUP BY queue, job, state
"""


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """How the file is kept. `free_pages` of its `pages` are empty, and will be used again."""

    version: int
    journal_mode: str
    page_size: int
    pages: int
    free_pages: int


def layout(database: SqliteDatabase) -> Layout:
    """How the file is kept."""
    return Layout(
        version=database.version(),
        journal_mode=str(_pragma(database, "journal_mode")),
        page_size=int(_pragma(database, "page_size")),
        pages=int(_pragma(database, "page_count")),
        free_pages=int(_pragma(database, "freelist_count")),
    )


def damage(database: SqliteDatabase, *, full: bool) -> list[str]:
    """What is wrong with the file, at most 10 lines; none: it is sound. `full` compares every index with its table too,
    which takes several times as long."""
    check = "integrity_check" if full else "quick_check"
    found = [str(row[0]) for row in database.all(f"PRAGMA {check}({MOST_ERRORS})")]
    return [] if found == ["ok"] else found


def miscounts(database: Database) -> list[str]:
    """Lines (queue, job, state) whose kept count isn't that of their runs. Looks at every run."""
    states = ", ".join(f"'{state.value}'" for state in sorted(STANDING))
    with database.snapshot():
        kept = Counter({tuple(row[:3]): row[3] for row in database.all(COUNTED)})
        there = Counter({tuple(row[:3]): row[3] for row in database.all(STANDING_RUNS.format(states))})
    return [
        f"{there[line]} runs of {line[1]} are {line[2]} in {line[0]}, and {kept[line]} are counted"
        for line in sorted(kept.keys() | there.keys())
        if kept[line] != there[line]
    ]


def has_reset_bug(version: tuple[int, int, int]) -> bool:
    """Does this SQLite have the WAL-reset bug: two processes that checkpoint at once may, rarely, damage the file?

    Source: sqlite.org, "The WAL-reset bug": fixed in 3.51.3, and in 3.50.7 and 3.44.6 of older branches.
    """
    fixed = version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)
    return not fixed


def _pragma(database: SqliteDatabase, name: str) -> str | int:
    row = database.one(f"PRAGMA {name}")
    assert row is not None, "each of them gives one"
    value: str | int = row[0]
    return value
