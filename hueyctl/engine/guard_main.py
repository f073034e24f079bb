"""Where the guard process begins: it must not import huey, nor anything else that it can do without."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from hueyctl.engine.guard_main import main; main(*sys.argv[2:])"


def guard_argv(*, lock: Path, lease_s: float, bell_dir: Path, fd: int = 0) -> list[str]:
    """The command line of a guard that finds its socket as `fd` (`Guard.start` gives it as stdin)."""
    # Isolated (-I): neither PYTHONPATH nor the current folder may put anything in front of the standard library.
    root = Path(__file__).resolve().parents[2]
    paths = str(root), str(lock.absolute()), repr(lease_s), str(bell_dir.absolute())
    return [sys.executable, "-I", "-c", _BOOT, *paths, str(fd)]


def main(lock: str, lease_s: str, bell_dir: str, fd: str) -> None:
    """Be the guard; when it has ended, ring: what its worker had can be rescued."""
    from hueyctl.engine.heap import look_for_garbage_less_often
    from hueyctl.process import guard
    from hueyctl.storage import bell

    look_for_garbage_less_often()
    guard.main(
        socket.socket(fileno=int(fd)),
        lock=Path(lock),
        lease_s=float(lease_s),
        on_exit=lambda: bell.ring(Path(bell_dir), b"death"),
    )
