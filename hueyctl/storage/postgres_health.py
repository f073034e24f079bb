"""What a doctor asks of a PostgreSQL server. Nothing is changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from hueyctl.storage.database import Database

_FACTS: Final = """
SELECT (SELECT schema FROM store), current_setting('server_version'),
    current_setting('fsync') = 'on', current_setting('full_page_writes') = 'on',
    (SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class
     WHERE relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('store')) AND relkind = 'r'),
    (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
    current_setting('max_connections')::bigint,
    (SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::double precision
     FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()),
    extract(epoch FROM clock_timestamp())::double precision
"""


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """How a server keeps the store. `size` is in bytes, with indexes; `oldest_s` is how long the transaction that has
    been open for longest is; `clock` is the server's."""

    schema: int
    version: str
    fsync: bool
    full_page_writes: bool
    size: int
    connections: int
    max_connections: int
    oldest_s: float
    clock: datetime


def server(database: Database) -> Server:
    """How the server keeps the store."""
    [(schema, version, fsync, full_pages, size, connections, most, oldest_s, clock)] = database.all(_FACTS)
    return Server(
        schema=schema,
        version=version,
        fsync=fsync,
        full_page_writes=full_pages,
        size=size,
        connections=connections,
        max_connections=most,
        oldest_s=oldest_s,
        clock=datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=clock),
    )
