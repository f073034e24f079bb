"""hueyctl: a durable job runner on Huey, declared in one file.

    import hueyctl

    queue = hueyctl.open_queue("jobs.toml")
    run = queue.enqueue("resize", path="cat.png")
    ended = queue.wait(run, timeout=60)

and, inside a job, `hueyctl.current_run()`. Importing this costs next to nothing: what is used is loaded then.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own would cost more than all the rest
if TYPE_CHECKING:
    from hueyctl.api import Event, Queue, Run, open_queue
    from hueyctl.current import CurrentRun, current_run
    from hueyctl.errors import HueyctlError

__version__ = "0.1.0"

__all__ = ["CurrentRun", "Event", "HueyctlError", "Queue", "Run", "__version__", "current_run", "open_queue"]

_HOMES = {
    "CurrentRun": "hueyctl.current",
    "Event": "hueyctl.api",
    "HueyctlError": "hueyctl.errors",
    "Queue": "hueyctl.api",
    "Run": "hueyctl.api",
    "current_run": "hueyctl.current",
    "open_queue": "hueyctl.api",
}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
