"""Points in time as people write them, and as hueyctl shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal


def parse_instant(
    text: str, *, now: datetime, timezone: str, direction: Literal["past", "future"] = "past"
) -> datetime:
    """The instant that `text` means, in UTC; ValueError (with what is accepted) where it means none."""
    raise NotImplementedError


def iso(at: datetime) -> str:
    """RFC 3339 in UTC with `Z`; microseconds only where there are some."""
    raise NotImplementedError
