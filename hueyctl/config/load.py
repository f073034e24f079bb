"""Find `jobs.toml`, read it once, and return its definitions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hueyctl.model.definition import Project


def find(explicit: Path | None, *, cwd: Path, environ: Mapping[str, str]) -> Path:
    """The file to use: `explicit`, HUEYCTL_FILE, or jobs.toml here or in the nearest parent; ConfigError if none."""
    raise NotImplementedError


def load(path: Path, *, environ: Mapping[str, str]) -> Project:
    """The definitions in this file; ConfigError with everything that is wrong in it."""
    raise NotImplementedError
