"""What is built: one wheel with all that hueyctl needs at run time, and nothing of the repository around it."""

from __future__ import annotations

import re
import subprocess
import zipfile
from pathlib import Path

from harness import Project

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_wheel_holds_all_that_is_not_python_too(installed: Path) -> None:
    (wheel,) = (REPOSITORY / "build" / "acceptance" / "dist").glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"hueyctl/storage/schema.sql", "hueyctl/py.typed", "hueyctl/process/child.py"} <= names
    assert {name.split("/")[0] for name in names} == {"hueyctl", "hueyctl-0.1.0.dist-info"}


def test_the_tests_run_what_is_installed_and_not_the_sources(project: Project, installed: Path) -> None:
    done = subprocess.run(
        [installed / "python", "-c", "import hueyctl; print(hueyctl.__file__)"],
        cwd=project.dir,
        env=project.env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(done.stdout.strip()).is_relative_to(installed.parent)


def test_the_package_is_a_command_too(project: Project, installed: Path) -> None:
    done = subprocess.run(
        [installed / "python", "-m", "hueyctl", "--version"],
        cwd=project.dir,
        env=project.env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == project.cli("--version").out


def test_the_constraints_name_versions_alone() -> None:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    packages = [line for line in lines if not line.startswith("#")]
    assert packages
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9.]+", line) for line in packages)


def test_enqueue_loads_neither_huey_nor_what_draws_tables(project: Project, installed: Path) -> None:
    project.write('[jobs.true]\ncommand = ["true"]\n')
    project.enqueue("true")
    done = subprocess.run(
        [installed / "python", "-X", "importtime", "-m", "hueyctl", "enqueue", "true"],
        cwd=project.dir,
        env=project.env,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {line.split("|")[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "hueyctl.app.enqueue" in loaded
    assert not loaded & {"huey", "rich", "cronsim", "asyncio", "pydantic", "zoneinfo", "hashlib"}
    assert not loaded & {"hueyctl.engine.worker", "hueyctl.process.client", "hueyctl.config.schema"}
