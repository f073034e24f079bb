"""The `jobs.toml` that `hueyctl init` writes."""

from __future__ import annotations


def starter(timezone: str) -> str:
    """A short, commented, working file."""
    raise NotImplementedError


def host_timezone() -> str:
    """The IANA name of this host's time zone; UTC where it can't be told."""
    raise NotImplementedError
