"""The stores under contract.

Every test of this folder runs on every store of `STORES`. A second store joins by a line there, and passes unchanged.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from postgres_server import PostgresServer
from scene import Opener, Scene

from hueyctl.storage.postgres import open_store as open_postgres
from hueyctl.storage.sqlite import open_store as open_sqlite


def sqlite_store(folder: Path, _: pytest.FixtureRequest) -> Opener:
    """Opens connections to one SQLite store."""
    return lambda: open_sqlite(folder / ".hueyctl" / "queue.db", create=True)


def postgres_store(_: Path, request: pytest.FixtureRequest) -> Opener:
    """Opens connections to one store in a database of its own."""
    server: PostgresServer = request.getfixturevalue("postgres")
    name = server.new_database(template=request.getfixturevalue("made"))
    request.addfinalizer(lambda: server.drop_database(name))
    return lambda: open_postgres(server.address(name))


@pytest.fixture(scope="session")
def made(postgres: PostgresServer) -> str:
    """A database with a store in it: to copy it takes a third of the time that making one does."""
    name = postgres.new_database()
    open_postgres(postgres.address(name), create=True).close()
    return name


STORES: dict[str, Callable[[Path, pytest.FixtureRequest], Opener]] = {
    "sqlite": sqlite_store,
    "postgres": postgres_store,
}


# Of what is drawn by chance each gets a part, unless `make contract` asks for all of it. A server takes a tenth of a
# millisecond to answer, where SQLite is called.
SHARES = {"sqlite": 1.0, "postgres": 1.0} if os.environ.get("ALL_DRAWS") else {"sqlite": 0.5, "postgres": 0.1}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out those of the many seeds of a walk that a store doesn't get."""
    out = [item for item in items if isinstance(item, pytest.Function) and _is_beyond_its_share(item)]
    config.hook.pytest_deselected(items=out)
    items[:] = [item for item in items if item not in set(out)]


def _is_beyond_its_share(item: pytest.Function) -> bool:
    given = item.callspec.params if hasattr(item, "callspec") else {}
    walks = {"store_at", "seed"} <= given.keys() and item.originalname.endswith("_of_a_walk")
    return walks and given["seed"] >= 50 * SHARES[str(given["store_at"])]


@pytest.fixture
def share(request: pytest.FixtureRequest) -> float:
    """How many of the examples that are drawn by chance this store gets."""
    return SHARES[request.node.callspec.params["store_at"]]


@pytest.fixture(params=list(STORES))
def store_at(request: pytest.FixtureRequest) -> Callable[[Path], Opener]:
    """Makes an opener of a store in a folder."""
    return lambda folder: STORES[request.param](folder, request)


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
