"""Fixtures of the unit tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from toml_file import Toml


@pytest.fixture
def toml(tmp_path: Path) -> Toml:
    """A `jobs.toml` in a folder of its own."""
    return Toml(tmp_path / "jobs.toml")
