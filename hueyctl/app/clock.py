"""The time, for use cases. They take it as a parameter, and a clock where they take time themselves."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The clock of every command, and of the Python API."""
    return datetime.now(UTC)
