"""Find `jobs.toml`, read it once, and return its definitions: all of them, or all that is wrong with it."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hueyctl.config.flows import PIPELINE, SCHEDULE, check_hooks, read_pipelines, read_schedules
from hueyctl.config.jobs import JOB, read_jobs
from hueyctl.config.keys import read
from hueyctl.config.reading import (
    At,
    File,
    Key,
    Keys,
    duration,
    filled_text,
    integer,
    list_of,
    name,
    named,
    path,
    program,
    size,
    some_time,
    table,
    takes,
    timezone,
)
from hueyctl.errors import ConfigError
from hueyctl.model.address import is_address, misreading
from hueyctl.model.definition import Project, QueueSettings, Retention, WorkerSettings

FILE_NAME = "jobs.toml"
DEFAULT_STORE = ".hueyctl/queue.db"

_LARGEST_FILE = 5 * 1024 * 1024
_NEARLY_AN_ADDRESS = re.compile(r"postgres(ql)?:|(\S+\s*=.*)?\b(host|dbname|password)\s*=", re.IGNORECASE)
_TOML_PLACE = r" \(at (line \d+, column \d+|end of document)\)$"


@takes(filled_text.schema)
def _store(at: At, value: object) -> str | None:
    found = filled_text(at, value)
    if found is None:
        return None
    # None of these messages repeats it: it may hold a password.
    if is_address(found):
        reason = misreading(found)
        if reason is None:
            return found
        at.wrong(f"this address would be misread: {reason}")
    elif _NEARLY_AN_ADDRESS.match(found):
        # As the name of a file it would work, and tell the password to everybody.
        at.wrong("this is nearly an address; expected postgresql://user@host/database, or a path")
    elif "://" in found:
        at.wrong("expected a path, or an address that begins with postgresql://")
    elif (place := path(at, found)) is not None:
        return str(place)
    return None


HUEYCTL: Keys = {
    "store": Key(_store, "Where runs are kept: a path, or postgresql://...; HUEYCTL_STORE overrides it."),
    "interpreter": Key(
        program, "The Python that runs Python jobs: a path, or a name on PATH; otherwise hueyctl's own."
    ),
    "pythonpath": Key(list_of(path), "Where Python jobs are imported from."),
    "timezone": Key(timezone, "An IANA name: of times without a zone, and of schedules that name none."),
}
WORKER: Keys = {
    "concurrency": Key(integer(1, 1000), "How many runs it can have going at a time."),
    "queues": Key(list_of(name, filled=True), "The only queues that it takes from; otherwise all."),
    "lease": Key(
        some_time(least=WorkerSettings().lease / 30), "How long a silent worker on another machine keeps its runs."
    ),
    "shutdown_timeout": Key(duration, "How long a worker that is stopped waits for what runs."),
    "output_max": Key(
        size(2**40), "What is kept of an attempt's output, for each stream: head and tail, the cut marked."
    ),
    "result_max": Key(size(2**28), "A larger result is null, with the reason."),
    "max_runs_per_child": Key(integer(1), "After so many runs the process of a Python job is replaced."),
}
QUEUE: Keys = {"concurrency": Key(integer(1), "So many of its runs at once, over all workers.")}
RETENTION: Keys = {
    "succeeded": Key(duration, "How long runs that succeeded are kept, with their output."),
    "failed": Key(duration, "How long runs that ended otherwise are kept, with their output."),
    "events": Key(duration, "How long the event log is kept."),
}
FILE: Keys = {
    "hueyctl": Key(table, "Where runs are kept, and how Python jobs are run."),
    "worker": Key(table, "What a worker takes, and what it keeps."),
    "queues": Key(table, "Limits of queues, by name."),
    "retention": Key(table, "How long what has ended is kept."),
    "defaults": Key(table, "Any key of a job; the job's own value wins."),
    "jobs": Key(table, "What can be run, and under which policy, by name."),
    "pipelines": Key(table, "Runs that wait for each other and hand results on, by name."),
    "schedules": Key(table, "When jobs and pipelines are enqueued, by name."),
}
TABLES: dict[str, Keys] = {
    "[jobs.NAME]": JOB,
    "[schedules.NAME]": SCHEDULE,
    "[pipelines.NAME]": PIPELINE,
    "[worker]": WORKER,
    "[retention]": RETENTION,
    "[hueyctl]": HUEYCTL,
    "[queues.NAME]": QUEUE,
    "[defaults]": JOB,
}
"""The keys of every kind of table, by how that is written; a misplaced key is said to belong in the first with it."""


def find(explicit: Path | None, *, cwd: Path, environ: Mapping[str, str]) -> Path:
    """The file to use, as an absolute path: `explicit`, HUEYCTL_FILE, or jobs.toml in `cwd` or its nearest parent.

    A file that is named need not exist; `load` says so.

    Raises:
        ConfigError: none is named, and there is none.
    """
    named_file = explicit or environ.get("HUEYCTL_FILE")
    if named_file:
        return cwd / named_file
    for folder in (cwd, *cwd.parents):
        # A broken link counts: passing it over would silently use the file of a parent folder.
        if os.path.lexists(folder / FILE_NAME):
            return folder / FILE_NAME
    raise ConfigError(
        [f"{FILE_NAME}: there is none in {cwd} or a folder above it"],
        hint="`hueyctl init` writes one; or name one with --file PATH or HUEYCTL_FILE",
    )


def load(path: Path, *, environ: Mapping[str, str]) -> Project:
    """The definitions in this file, which is read once.

    Raises:
        ConfigError: the file can't be read, or something in it is wrong; `problems` has all of it.
    """
    path = path.absolute()
    project, problems = _of(path, _toml(path), environ)
    if problems:
        raise ConfigError(problems)
    return project


def salvage(explicit: Path | None, *, cwd: Path, environ: Mapping[str, str]) -> Project:
    """What can still be told where `find` or `load` fails: where the store is, and the time zone. No definitions: of
    half a file they may lack what a default gives them, such as that a parameter is secret.

    Without any file it is taken for lost from the nearest folder with a store at its usual place. Where the
    store is named wrongly, its name is empty.
    """
    try:
        path = find(explicit, cwd=cwd, environ=environ)
    except ConfigError:
        used = (folder for folder in (cwd, *cwd.parents) if (folder / DEFAULT_STORE).is_file())
        path = next(used, cwd) / FILE_NAME
    path = path.absolute()
    try:
        raw = _toml(path)
    except ConfigError:
        raw = {}
    found, _ = _of(path, raw, environ)
    return Project(path=path, store=found.store, timezone=found.timezone)


def _of(path: Path, raw: dict[str, Any], environ: Mapping[str, str]) -> tuple[Project, list[str]]:
    file = File(path.name, path.parent, TABLES)
    at = At(file)
    read(at, raw, FILE)
    # A section that isn't a table has been reported, and reads as an empty one.
    raw = {section: value for section, value in raw.items() if isinstance(value, dict)}
    own = read(at / "hueyctl", raw.get("hueyctl", {}), HUEYCTL)
    if "store" not in own and "store" in raw.get("hueyctl", {}):
        own["store"] = ""  # what is named wrongly must not lead to another store
    if override := environ.get("HUEYCTL_STORE"):
        own["store"] = _store(At(file) / "HUEYCTL_STORE", override) or ""
    worker = read(at / "worker", raw.get("worker", {}), WORKER)
    retention = read(at / "retention", raw.get("retention", {}), RETENTION)
    queues = {
        key: QueueSettings(**read(place, values, QUEUE))
        for key, place, values in named(at / "queues", raw.get("queues", {}))
    }
    jobs = read_jobs(at, raw)
    check_hooks(at, raw, jobs)
    pipelines = read_pipelines(at, raw, jobs)
    schedules = read_schedules(at, raw, jobs, pipelines, default_timezone=own.get("timezone", "UTC"))
    own.setdefault("store", str(path.parent / DEFAULT_STORE))
    own.setdefault("pythonpath", (path.parent,))
    project = Project(
        path=path,
        **own,
        worker=WorkerSettings(**worker),
        queues=queues,
        retention=Retention(**retention),
        jobs={key: job for key, job in jobs.items() if job},
        pipelines={key: pipeline for key, pipeline in pipelines.items() if pipeline},
        schedules=schedules,
        on_failure=raw.get("defaults", {}).get("on_failure"),
    )
    return project, file.problems


def _toml(path: Path) -> dict[str, Any]:
    name = path.name
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except FileNotFoundError as exc:
        raise ConfigError([f"{name}: there is no such file ({path})"], hint="`hueyctl init` writes one") from exc
    except IsADirectoryError as exc:
        raise ConfigError([f"{name}: expected a file, got a folder ({path})"]) from exc
    # ValueError: a NUL in the path.
    except (OSError, ValueError) as exc:
        raise ConfigError([f"{name}: can't be read: {getattr(exc, 'strerror', None) or exc} ({path})"]) from exc
    if len(content) > _LARGEST_FILE:
        raise ConfigError([f"{name}: larger than 5 MiB"])
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise ConfigError([f"{name}: line {line}: not UTF-8 (byte 0x{content[exc.start]:02x})"]) from exc
    except RecursionError as exc:
        raise ConfigError([f"{name}: nested too deeply"]) from exc
    # TOMLDecodeError is one; an integer of thousands of digits raises a plain one.
    except ValueError as exc:
        raise ConfigError([f"{name}: {_broken(str(exc))}"]) from exc


def _broken(message: str) -> str:
    """tomllib's message, with the place first: `line 3, column 5: …`."""
    place = re.search(_TOML_PLACE, message)
    text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in re.sub(_TOML_PLACE, "", message)[:200])
    return f"{place[1]}: {text}" if place else text
