"""What integration tests start, and end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from guarded import Guarded


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    """A guard of the test's own, closed at its end."""
    guarded = Guarded(tmp_path)
    yield guarded
    guarded.guard.close(10)
