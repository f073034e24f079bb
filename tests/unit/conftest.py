"""Fixtures of the unit tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings
from toml_file import Toml

# A deadline per example measures the machine: on a busy one it fails what is right.
settings.register_profile("unit", deadline=None)
settings.load_profile("unit")


@pytest.fixture
def toml(tmp_path: Path) -> Toml:
    """A `jobs.toml` in a folder of its own."""
    return Toml(tmp_path / "jobs.toml")
