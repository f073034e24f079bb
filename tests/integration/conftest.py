"""What integration tests start, and end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from guarded import Guarded
from shell import Shell


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    """A guard of the test's own, closed at its end."""
    guarded = Guarded(tmp_path)
    yield guarded
    guarded.guard.close(10)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A project folder to type hueyctl in."""
    shell = Shell(tmp_path)
    yield shell
    shell.end()
