"""One statement for many rows: what it costs to run one is more than what a row does, in SQLite as on a server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain

from hueyctl.storage.rows import Row


def in_few(sql: str, rows: Sequence[Row], sizes: Sequence[int]) -> Iterator[tuple[str, Sequence[Row]]]:
    """What to run for each of these rows, as few statements: of a plain INSERT, one inserts several of them at once.

    `sizes`, the largest first, is how many: few sizes, so that each statement is prepared once. What is less than the
    smallest goes row by row.
    """
    if _is_plain_insert(sql):
        for size in sizes:
            whole = len(rows) - len(rows) % size
            if whole:
                yield _of_many(sql, size), [tuple(chain(*rows[at : at + size])) for at in range(0, whole, size)]
                rows = rows[whole:]
    if rows:
        yield sql, rows


@lru_cache(maxsize=256)
def _is_plain_insert(sql: str) -> bool:
    """Does it end with the values of the one row that it inserts?"""
    return sql.lstrip().startswith("INSERT") and "VALUES " in sql and sql.rstrip().endswith("?)")


@lru_cache(maxsize=256)
def _of_many(sql: str, count: int) -> str:
    head, values, row = sql.partition("VALUES ")
    return head + values + ", ".join([row.strip()] * count)
