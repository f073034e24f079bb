"""The guard: starts, watches and ends every child of a worker."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path


def main(sock: socket.socket, *, lock: Path, lease_s: float, on_exit: Callable[[], None]) -> None:
    """Serve one worker until its socket closes, its ticks stop for ⅔ of `lease_s`, or it says close."""
    raise NotImplementedError
