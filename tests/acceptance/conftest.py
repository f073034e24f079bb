"""The acceptance tests type the installed command: the wheel, built from the sources, in a venv of its own.

Whatever process of a test is left when the test ends makes it fail.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Project, eventually

REPOSITORY = Path(__file__).resolve().parents[2]
BUILD = REPOSITORY / "build" / "acceptance"


@pytest.fixture(scope="session")
def installed() -> Path:
    """The bin folder of a venv that has the wheel, built from the sources as they are now, and nothing of the tree."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _install()
    return BUILD / "venv" / "bin"


def _install() -> None:
    sources = [REPOSITORY / "pyproject.toml", REPOSITORY / "constraints.txt", REPOSITORY / "README.md"]
    sources += sorted(path for path in (REPOSITORY / "hueyctl").rglob("*") if path.suffix in {".py", ".sql", ".typed"})
    key = hashlib.sha256(b"[postgres,metrics]")
    for source in sources:
        key.update(f"{source.relative_to(REPOSITORY)}\0".encode() + source.read_bytes() + b"\0")
    stamp = BUILD / "installed"
    if stamp.exists() and stamp.read_text() == key.hexdigest():
        return
    stamp.unlink(missing_ok=True)
    wheels = BUILD / "dist"
    for old in wheels.glob("*.whl"):
        old.unlink()
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(REPOSITORY)]
    subprocess.run(build, check=True)
    (wheel,) = wheels.glob("*.whl")
    python = BUILD / "venv" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", BUILD / "venv"], check=True)
    install = [str(python), *pip[1:], "install", "--constraint", str(REPOSITORY / "constraints.txt")]
    subprocess.run([*install, f"{wheel}[postgres,metrics]"], check=True)
    # The version stays the same from build to build, and pip then takes what is there for what was asked.
    subprocess.run([*install, "--no-deps", "--force-reinstall", str(wheel)], check=True)
    stamp.write_text(key.hexdigest())


@pytest.fixture
def project(tmp_path: Path, installed: Path) -> Iterator[Project]:
    with new_project(tmp_path / "project", installed) as project:
        yield project


@contextlib.contextmanager
def new_project(folder: Path, installed: Path) -> Iterator[Project]:
    """A project in a new folder; no process of it may be left at the end."""
    folder.mkdir()
    project = Project(folder, installed / "hueyctl")
    project.env["PATH"] = f"{installed}{os.pathsep}{os.environ['PATH']}"
    yield project
    try:
        eventually(lambda: not project.processes(), timeout=10)
    except pytest.fail.Exception:
        left = project.processes()
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        pytest.fail(f"these outlived the test: {left}")


@pytest.fixture
def projects(tmp_path: Path, installed: Path) -> Iterator[tuple[Project, Project]]:
    """Two of them, that share nothing: as on two machines, where they have the same store."""
    with new_project(tmp_path / "here", installed) as here, new_project(tmp_path / "there", installed) as there:
        yield here, there
