"""The store of a place, whichever kind it is."""

from __future__ import annotations

from hueyctl.errors import StoreError
from hueyctl.model.address import without_password
from hueyctl.storage.bell import Bell
from hueyctl.storage.place import Place
from hueyctl.storage.sql import SqlStore


def open_store(
    place: Place, *, create: bool = False, migrate: bool = False, read_only: bool = False, busy_s: float = 5.0
) -> SqlStore:
    """Open the store of `place`; what each means, and what is raised: `sqlite.open_store`, `postgres.open_store`."""
    if place.address is None:
        from hueyctl.storage import sqlite

        return sqlite.open_store(place.path, create=create, migrate=migrate, read_only=read_only, busy_s=busy_s)
    _need_driver(place.address)
    from hueyctl.storage import postgres

    return postgres.open_store(place.address, create=create, busy_s=busy_s, origin=place.origin())


def open_bell(place: Place) -> Bell:
    """A bell that is rung for what happens in the store of `place`: here and, where it has several machines, on others.

    Where nothing can be made in its folder, it is silent, and its owner looks by itself.
    """
    if place.address is None:
        return Bell(place.bell)
    _need_driver(place.address)
    from hueyctl.storage.postgres_bell import RelayedBell

    return RelayedBell(place, place.address)


def _need_driver(address: str) -> None:
    try:
        import psycopg  # noqa: F401 - to say what is missing before anything else needs it
    except ImportError as exc:
        raise StoreError(
            f"{without_password(address)}: PostgreSQL needs the package psycopg, and it can't be loaded: {exc}",
            hint="pip install 'hueyctl[postgres]'",
        ) from exc
