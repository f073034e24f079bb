"""What lies between the statements of this package and PostgreSQL: how values are named and sent, what errors mean."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import psycopg
from psycopg.adapt import Buffer, Dumper
from psycopg.types.numeric import Int8Dumper

from hueyctl.errors import (
    StoreBusy,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreReplaced,
    StoreUnreachable,
)
from hueyctl.storage.database import Unstorable
from hueyctl.storage.rows import utf8

# Texts of ours have no question marks; an index is named where SQLite would take another one; `temp.` is the schema of
# what a connection keeps for itself.
_PLACE: Final = re.compile(r"\?(\d*)|INDEXED BY \w+|\btemp\.")

# Rows that one statement inserts; it takes 65,535 values at most.
SIZES: Final = (256, 32, 8, 4, 2)

NEEDS_OWNER: Final = "it needs a user who owns the store"
NEEDS_CREATE: Final = "GRANT CREATE ON DATABASE … TO … lets its user make it"


@lru_cache(maxsize=1024)
def numbered(sql: str) -> bytes:
    """The statement with its `?` and `?1` as `$1`, as PostgreSQL takes them. A `?` without a number has the one after
    the greatest so far, as in SQLite."""
    last = 0

    def place(found: re.Match[str]) -> str:
        nonlocal last
        if not found[0].startswith("?"):
            return "pg_temp." if found[0] == "temp." else ""
        number = int(found[1]) if found[1] else last + 1
        last = max(last, number)
        return f"${number}"

    return _PLACE.sub(place, sql).encode()


def adapt(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    """Have values sent so that each has one type, whatever it is: a statement is prepared once."""
    for kind, dumper in ((int, Int8Dumper), (bool, _Flag), (str, _Text)):
        connection.adapters.register_dumper(kind, dumper)


class _Flag(Dumper):
    """A truth as an integer, as the columns have it."""

    oid = psycopg.adapters.types["int8"].oid

    def dump(self, obj: bool) -> Buffer:
        return b"1" if obj else b"0"


class _Text(Dumper):
    """Text of the type that its place asks for, with what PostgreSQL can't hold replaced: lone surrogates, and NUL."""

    def dump(self, obj: str) -> Buffer:
        return utf8(obj).replace("\0", "\N{REPLACEMENT CHARACTER}").encode()


def meaning(exc: psycopg.Error, shown: str, *, busy_s: float, lost: bool, secrets: Sequence[str] = ()) -> StoreError:
    """What an error means to the user of the store at `shown`; `lost`: there is no connection any more."""
    state = exc.sqlstate or ""
    said = exc.diag.message_primary or "; ".join(line.strip() for line in str(exc).splitlines() if line.strip())
    for secret in secrets:
        said = said.replace(secret, "***") if secret else said
    match state:
        case "22003":
            return Unstorable(f"{shown}: a number is too large to be stored")
        case "57014":  # canceled, or too slow for a limit of the user's: that says nothing of whether others can write
            return StoreUnreachable(f"{shown}: {said}", hint="try again")
        case "54000" if "NOTIFY" in said:
            hint = "somebody listens in a transaction that is open for long: pg_stat_activity shows who"
            return StoreBusy(f"{shown}: {said}", hint=hint)
        case "55P03" | "40001" | "40P01":
            return StoreBusy(
                f"{shown} was locked by another process for more than {busy_s:g} s",
                hint="try again; if it stays locked, pg_stat_activity shows who holds it",
            )
        case "53100":
            return StoreFull(f"{shown}: the disk of the server is full", hint="free some space; nothing was half-done")
        case "42501" | "25006":
            return StoreReadOnly(f"{shown} can't be written: {said}", hint=NEEDS_OWNER)
        case "42P01" | "42703" | "3F000":
            return StoreReplaced(
                f"{shown} has no store any more, or not that one: {said}",
                hint="stop everything that uses it, put the store back, and start again",
            )
        case "XX001" | "XX002":
            return StoreDamaged(f"{shown} is damaged: {said}", hint="restore a copy made by pg_dump")
    if lost or state[:2] in {"08", "53"} or state in {"57P01", "57P02", "57P03", "57P05", "25P03"}:
        return StoreUnreachable(f"{shown} can't be reached: {said}", hint=_what_to_do(said))
    if state[:2] in {"22", "23", "54"}:
        return Unstorable(f"{shown}: {said}")
    return StoreError(f"{shown}: {said}")


def _what_to_do(said: str) -> str:
    """About a connection that wasn't made. libpq tells what a server has answered as text alone."""
    if "password" in said or "authentication" in said or "pg_hba" in said:
        return "the server refuses this user: look at ~/.pgpass (mode 0600) or PGPASSWORD, and at pg_hba.conf"
    if "does not exist" in said:
        return "the server is there; createdb and createuser make a database and a user"
    if "SSL" in said:
        return "look at sslmode in the address"
    return "is the server running, and the address right?"
