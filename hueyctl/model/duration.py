"""Durations as people write them: `15s`, `10m`, `1h30m`, `7d`, `500ms`, or a number of seconds."""

from __future__ import annotations

from datetime import timedelta


def parse_duration(value: object) -> timedelta:
    """The duration that `value` says; ValueError says what is wrong with it."""
    raise NotImplementedError


def format_duration(value: timedelta) -> str:
    """The shortest text from which `parse_duration` makes the same duration."""
    raise NotImplementedError
