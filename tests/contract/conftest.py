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
def store_at(request: pytest.FixtureRequest) -> Callable[[Path], Opener]:
    """Makes an opener of a store in a folder."""
    return STORES[request.param]


@pytest.fixture
def opener(store_at: Callable[[Path], Opener], tmp_path: Path) -> Opener:
    """Each call opens the same store once more."""
    return store_at(tmp_path)


@pytest.fixture
def scene(opener: Opener) -> Iterator[Scene]:
    """A scene with the worker `w1`; at the end its history must be true."""
    scene = Scene(opener)
    scene.register("w1")
    yield scene
    scene.check_history()
    scene.close()
