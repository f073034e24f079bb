"""An attempt's output on the disk: bounded, readable at any moment, by followers too."""

from __future__ import annotations

from pathlib import Path


class CappedFile:
    """The writer of one stream."""


class OutputReader:
    """Follows one stream from its beginning."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> bytes:
        """What came since the last call (a piece of it where it is much: call until it is empty)."""
        raise NotImplementedError


def tail_lines(path: Path, n: int) -> bytes:
    """The last `n` lines; nothing where nothing was printed."""
    raise NotImplementedError
