"""A consistent copy of the store, while workers go on."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from hueyctl.app.session import Session
from hueyctl.errors import Refused
from hueyctl.storage.backup import Backup
from hueyctl.storage.backup import back_up as copy_store

__all__ = ["Backup", "back_up"]


def back_up(session: Session, file: Path, *, replace: bool = False) -> Backup:
    """Copy the store to `file`; what runs have printed is not in it.

    Raises:
        Refused: `file` is there and `replace` is false, is part of a store, or can't be written; nothing is left of it.
            Or the store is on a server.
        StoreDamaged: the store is damaged; no copy is kept.
        StoreError: the store can't be read.
    """
    if session.place.address is not None:
        hint = "`pg_dump -n hueyctl --no-unlogged-table-data` copies it while workers go on: see docs/operations.md"
        raise Refused(f"{session.place.shown}: a store on a server is not copied into a file", hint=hint)
    return copy_store(
        session.place.path, Path(os.path.abspath(file)), replace=replace, by=session.by, now=datetime.now(UTC)
    )
