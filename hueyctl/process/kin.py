"""Who descends from this process: /proc on Linux; elsewhere only process groups are known."""

from __future__ import annotations


def become_subreaper() -> bool:
    """Let orphaned descendants become children of this process; False where the system has no such thing."""
    raise NotImplementedError


def kill_everything_below() -> None:
    """Kill every descendant of this process and reap it; returns when there is none left."""
    raise NotImplementedError
