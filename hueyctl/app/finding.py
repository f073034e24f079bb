"""Which runs a user means: an id, the beginning of one, the name of a job or pipeline, `last`, or a selection by job,
state and age."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from hueyctl.app.session import Session
from hueyctl.errors import HueyctlError, NotFound, UsageError
from hueyctl.model.run import Run, RunState
from hueyctl.model.wording import did_you_mean, quoted
from hueyctl.storage.store import RunFilter, Store

SHORTEST_PREFIX = 4
_HEX = re.compile(r"[0-9a-f-]{1,36}", re.IGNORECASE)
_PAGE = 1000


def find_run(session: Session, text: str) -> Run:
    """The run that `text` means: its id, a unique beginning of it of 4 or more, the name of its job or pipeline (the
    newest run of it), or `last` (the newest that was started by hand; of a pipeline, its own).

    A name comes before the beginning of an id: a job called `cafe` must not turn into somebody's run one day.

    Raises:
        NotFound: there is none.
        UsageError: it begins several ids, or is too short.
    """
    store = session.reader()
    if text == "last":
        run = store.newest()
        if run is None:
            raise NotFound("there is no run yet", hint="`hueyctl enqueue NAME` makes one")
        return run
    run = store.newest(job=text)
    if run is not None:
        return run
    project = session.project
    if text in project.jobs or text in project.pipelines:
        kind = "job" if text in project.jobs else "pipeline"
        raise NotFound(f"the {kind} {quoted(text)} has no runs yet", hint=f"`hueyctl enqueue {text}` makes one")
    if text in project.schedules:
        hint = f"`hueyctl runs --schedule {text}` lists its runs"
        raise NotFound(f"{quoted(text)} is a schedule, and no run", hint=hint)
    if _HEX.fullmatch(text):
        return _by_prefix(store, text.lower())
    message = f"there is no run or job {quoted(text)}{did_you_mean(text, [*project.jobs, *project.pipelines])}"
    raise _unknown(session, message, "`hueyctl runs` lists the newest")


def find_runs(session: Session, texts: Sequence[str]) -> list[Run]:
    """The runs that these texts mean, each once."""
    return list({run.id: run for run in (find_run(session, text) for text in texts)}.values())


def find_pipeline(session: Session, text: str) -> Run:
    """The run of a pipeline that `text` means, itself or by a step of it.

    Raises:
        NotFound, UsageError: as `find_run`; or the run that is meant is neither.
    """
    run = find_run(session, text)
    whole = run if run.pipeline is None else session.reader().get(run.pipeline)
    if whole is None or not whole.is_pipeline:
        raise NotFound(f"run {run.id[:8]} of {run.job} is no pipeline's", hint=f"`hueyctl inspect {run.id[:8]}`")
    return whole


def select_runs(session: Session, where: RunFilter) -> Iterator[list[Run]]:
    """All runs that match, newest first, in pages: what is done to one page doesn't disturb the next.

    A pipeline's own run is among them where its name was asked for; otherwise its steps are, and it goes with them.
    """
    before: int | None = None
    while page := session.reader().runs(where, limit=_PAGE, before=before):
        before = page[-1].n
        yield [run for run in page if where.job is not None or not run.is_pipeline]


def parse_states(texts: Sequence[str] | None) -> tuple[RunState, ...] | None:
    """The states that users named, with commas or one by one; raises UsageError with the nearest one."""
    words = [word for text in texts or () for word in text.split(",") if word]
    known = {state.value: state for state in RunState}
    for word in words:
        if word not in known:
            message = f"there is no state {quoted(word)}{did_you_mean(word, known)}"
            raise UsageError(message, hint=f"states are {', '.join(known)}")
    return tuple(dict.fromkeys(known[word] for word in words)) or None


def known_job(session: Session, name: str | None) -> str | None:
    """`name` if it is a job or pipeline that is defined, here or in a worker, or was run; raises NotFound otherwise."""
    project = session.project
    if name is None or name in project.jobs or name in project.pipelines:
        return name
    store = session.reader()
    if store.newest(job=name) or any(name in worker.jobs for worker in store.workers()):
        return name
    message = f"there is no job {quoted(name)}{did_you_mean(name, [*project.jobs, *project.pipelines])}"
    raise _unknown(session, message, "`hueyctl jobs` lists what jobs.toml defines")


def is_pipeline(session: Session, name: str) -> bool:
    """Is it a pipeline's name and not a job's: by the file or, where that doesn't say, by its newest run?"""
    if name in session.project.jobs or name in session.project.pipelines:
        return name in session.project.pipelines
    newest = session.reader().newest(job=name)
    return newest is not None and newest.is_pipeline


def known_queue(session: Session, name: str | None) -> str | None:
    """`name` if it is a queue that a job, the file, a worker or a run names; raises NotFound otherwise."""
    if name is None:
        return name
    project, store = session.project, session.reader()
    known = {job.queue for job in project.jobs.values()} | set(project.queues) | set(project.worker.queues or ())
    known |= {queue for worker in store.workers() for queue in worker.queues or ()}
    if name in known or store.runs(RunFilter(queue=name), limit=1):
        return name
    message = f"there is no queue {quoted(name)}{did_you_mean(name, known)}"
    raise _unknown(session, message, "`hueyctl inspect` lists them")


def known_schedule(session: Session, name: str | None) -> str | None:
    """`name` if it is a schedule that is defined or was; raises NotFound otherwise."""
    if name is None or name in session.project.schedules:
        return name
    if any(state.name == name for state in session.reader().schedule_states()):
        return name
    message = f"there is no schedule {quoted(name)}{did_you_mean(name, session.project.schedules)}"
    raise _unknown(session, message, "`hueyctl schedule list` lists them")


def _unknown(session: Session, message: str, hint: str) -> HueyctlError:
    """The store has no such name; without a right file nobody knows whether it is one."""
    return session.file_error or NotFound(message, hint=hint)


def _by_prefix(store: Store, prefix: str) -> Run:
    if len(prefix) < SHORTEST_PREFIX:
        raise UsageError(f"{quoted(prefix)} is too short for a run", hint=f"give {SHORTEST_PREFIX} characters or more")
    found = store.find(prefix, limit=10)
    if len(found) > 1:
        listed = ", ".join(f"{run.id} ({run.job}, {run.state})" for run in found[:9])
        more = ", …" if len(found) > 9 else ""
        raise UsageError(f"{quoted(prefix)} begins several runs: {listed}{more}", hint="give more of the id")
    if not found:
        raise NotFound(f"there is no run {quoted(prefix)}", hint="`hueyctl runs` lists the newest")
    return found[0]
