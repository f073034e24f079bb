"""The same statements and the same tables for SQLite and for PostgreSQL."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from importlib.resources import files

import pytest

from hueyctl.storage.postgres_dialect import numbered

STATEMENTS = {
    "SELECT 1": "SELECT 1",
    "SELECT ?, ?": "SELECT $1, $2",
    "SELECT ?2, ?1": "SELECT $2, $1",
    "SELECT ?1, ?1, ?": "SELECT $1, $1, $2",
    "SELECT ?, ?1, ?": "SELECT $1, $1, $2",
    "SELECT ?3, ?": "SELECT $3, $4",
    "SELECT ?10, ?": "SELECT $10, $11",
}


@pytest.mark.parametrize(("sqlites", "postgres"), STATEMENTS.items())
def test_values_have_the_numbers_that_sqlite_gives_them(sqlites: str, postgres: str) -> None:
    assert numbered(sqlites).decode() == postgres
    values = [f"value {n}" for n in range(1, 12)]
    taken = [values[int(n) - 1] for n in re.findall(r"\$(\d+)", postgres)]
    with closing(sqlite3.connect(":memory:")) as connection:
        most = max((int(n) for n in re.findall(r"\$(\d+)", postgres)), default=0)
        assert list(connection.execute(sqlites, values[:most]).fetchone()) == (taken or [1])


def test_an_index_is_named_for_sqlite_alone() -> None:
    assert numbered("SELECT n FROM runs INDEXED BY runs_due WHERE due_at <= ?") == (
        b"SELECT n FROM runs  WHERE due_at <= $1"
    )


def test_both_kinds_of_store_have_the_same_tables_columns_and_indexes() -> None:
    sqlite, postgres = tables("schema.sql"), tables("postgres.sql")
    assert sqlite.keys() > {"runs", "events", "workers", "meta"}
    own = set(postgres.pop("store"))  # one row of PostgreSQL's own
    assert own > {"id", "schema", "version"}
    assert postgres.pop("outputs"), "what lies in files otherwise"
    assert postgres == sqlite
    assert indexes("postgres.sql") == indexes("schema.sql")


def text(file: str) -> str:
    """The file without its comments."""
    return re.sub(r"--.*", "", files("hueyctl.storage").joinpath(file).read_text(encoding="utf-8"))


def tables(file: str) -> dict[str, list[str]]:
    """The columns of each table, in their order."""
    found = re.findall(r"CREATE TABLE (\w+) \((.*?)\n\)", text(file), re.DOTALL)
    return {name: re.findall(r"^    (?!PRIMARY|UNIQUE|FOREIGN|CHECK)(\w+)", body, re.MULTILINE) for name, body in found}


def indexes(file: str) -> set[str]:
    return set(re.findall(r"CREATE (?:UNIQUE )?INDEX (\w+)", text(file)))
