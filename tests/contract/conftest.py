"""The stores under contract.

Every test of this folder runs on every store of `STORES`. A second store joins by a line there, and passes unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scene import Opener, Scene

from hueyctl.storage.sqlite import open_store


def sqlite(folder: Path) -> Opener:
    """Opens connections to one SQLite store."""
    return lambda: open_store(folder / ".hueyctl" / "queue.db", create=True)


STORES: dict[str, Callable[[Path], Opener]] = {"sqlite": sqlite}


@pytest.fixture(params=list(STORES))
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Each call opens the same store once more."""
    return STORES[request.param](tmp_path)


@pytest.fixture
def scene(opener: Opener) -> Iterator[Scene]:
    """A scene with the worker `w1`; at the end its history must be true."""
    scene = Scene(opener)
    scene.register("w1")
    yield scene
    scene.check_history()
    scene.close()
