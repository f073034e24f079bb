"""`jobs.toml`: found, read once, and turned into frozen definitions, or into all of its errors at once."""

from __future__ import annotations

from hueyctl.config.load import find, load, salvage
from hueyctl.config.starter import host_timezone, starter

__all__ = ["find", "host_timezone", "load", "salvage", "starter"]
