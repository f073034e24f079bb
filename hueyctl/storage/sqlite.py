"""The store in one SQLite file."""

from __future__ import annotations

from pathlib import Path

from hueyctl.storage.store import Store


def open_store(
    path: Path, *, create: bool = False, migrate: bool = False, read_only: bool = False, busy_s: float = 5.0
) -> Store:
    """Open the store at `path`."""
    raise NotImplementedError
