"""The store on a PostgreSQL server: how it is opened, and how it comes to be."""

from __future__ import annotations

import secrets
from contextlib import suppress
from typing import Final

import psycopg

from hueyctl.errors import StoreError, StoreMissing, StoreReadOnly, StoreReplaced
from hueyctl.model.address import without_password
from hueyctl.storage.database import SCHEMA_VERSION
from hueyctl.storage.postgres_database import PostgresDatabase, connect
from hueyctl.storage.postgres_dialect import NEEDS_CREATE, NEEDS_OWNER, meaning
from hueyctl.storage.rows import Row
from hueyctl.storage.sql import SqlStore

# Whoever makes a store takes this lock first; any number will do that nobody else uses.
CREATION: Final = 0x6875657963746C
# A store of this schema, whether or not this user sees it.
_HIDDEN: Final = b"""
SELECT FROM pg_class
WHERE relname = 'store' AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1)
"""


class PostgresStore(SqlStore):
    """A `Store` on a server. Never across a fork: a connection belongs to the process."""

    database: PostgresDatabase


def open_store(address: str, *, create: bool = False, busy_s: float = 5.0, origin: str = "") -> PostgresStore:
    """Open the store at an address, made where `create` and it is missing. (It has had one version, so that none is
    brought up to date yet.)

    `busy_s` is how long each verb waits for others that write, and for a server that is gone. `origin` names this
    machine to those who are rung by us.

    Raises:
        StoreMissing: there is none, and `create` is false.
        StoreUnreachable: the server isn't there, or doesn't let us in.
        StoreNewer: a newer hueyctl wrote it.
        StoreReadOnly: the user may not make it, or not write in it.
    """
    try:
        database = PostgresDatabase(address, busy_s=busy_s, origin=origin)
    except StoreReplaced as exc:  # no table of ours is there
        _make(address, create, busy_s, exc)
        database = PostgresDatabase(address, busy_s=busy_s, origin=origin)
    return PostgresStore(database)


def _make(address: str, create: bool, busy_s: float, missed: StoreReplaced) -> None:
    """Make the store that was missed, unless somebody else just has, or it was there and can't be seen by this user."""
    shown = without_password(address)
    connection = connect(address, busy_s=busy_s)
    try:
        with connection.transaction():
            connection.execute(b"SELECT pg_advisory_xact_lock($1)", (CREATION,))
            [(path, found)] = _rows(connection, b"SELECT current_setting('search_path'), to_regclass('store')::text")
            schema = path.partition(",")[0].strip().strip('"')
            if found is None and _rows(connection, _HIDDEN, schema):
                raise StoreReadOnly(f"{shown}: this user may not use the store", hint=NEEDS_OWNER) from missed
            if found is None and not create:
                hint = "`hueyctl enqueue` or `hueyctl worker start` makes one"
                raise StoreMissing(f"{shown}: there is no store yet", hint=hint) from missed
            if found is None:
                _fill(connection, schema)
    except psycopg.Error as exc:
        told = meaning(exc, shown, busy_s=busy_s, lost=connection.closed)
        if isinstance(told, StoreReadOnly):
            told = StoreReadOnly(f"{shown}: the store can't be made: {exc.diag.message_primary}", hint=NEEDS_CREATE)
        if isinstance(told, StoreReplaced):
            told = StoreError(f"{shown}: the store can't be made: {exc.diag.message_primary}")
        raise told from exc
    finally:
        with suppress(psycopg.Error):
            connection.close()


def _fill(connection: psycopg.Connection[Row], schema: str) -> None:
    # Loaded once in a store's life.
    from importlib.resources import files

    [(there,)] = _rows(connection, b"SELECT count(*) FROM pg_namespace WHERE nspname = $1", schema)
    if not there:
        connection.execute(f"CREATE SCHEMA {_quoted(schema)}".encode())
    statements = files("hueyctl.storage").joinpath("postgres.sql").read_text(encoding="utf-8")
    connection.execute(statements.encode(), prepare=False)
    id, word = secrets.token_hex(8), secrets.token_hex(8)
    connection.execute(
        b"INSERT INTO store (id, schema, version, writer, word, before, left_at) VALUES ($1, $2, 0, '', $3, '', 0)",
        (id, SCHEMA_VERSION, word),
    )
    connection.execute(b"INSERT INTO alive (word) VALUES ($1)", (word,))


def _rows(connection: psycopg.Connection[Row], sql: bytes, *values: object) -> list[Row]:
    return connection.execute(sql, values or None).fetchall()


def _quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'
