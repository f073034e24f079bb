"""The hooks of one `jobs.toml`, as the store calls them: in the transaction of the end that they follow."""

from __future__ import annotations

from contextlib import suppress

from hueyctl.engine.log import WorkerLog
from hueyctl.errors import HueyctlError
from hueyctl.model.definition import Project
from hueyctl.model.hook import ANY_JOB, TEXT_MAX, Hooks, Occasion, hook_run, takes_output
from hueyctl.model.mask import Mask
from hueyctl.model.order import new_ids
from hueyctl.model.run import NewRun, Run
from hueyctl.process.output import tail
from hueyctl.storage.place import Place


def hooks_of(project: Project, place: Place, log: WorkerLog | None = None) -> Hooks:
    """A hook for each job that has one, and one for what isn't defined where [defaults] has one; `place` has the
    output of runs. Without a `log`, why a hook's run can't be made is in its event alone."""
    hooks = {
        job.name: _Hook(project, job.on_failure, job.on_success, place, log)
        for job in project.jobs.values()
        if job.on_failure is not None or job.on_success is not None
    }
    if project.on_failure is not None:
        hooks[ANY_JOB] = _Hook(project, project.on_failure, None, place, log)
    return hooks


class _Hook:
    """Makes the runs that follow those of one job."""

    def __init__(
        self, project: Project, on_failure: str | None, on_success: str | None, place: Place, log: WorkerLog | None
    ) -> None:
        self._project, self._place, self._log = project, place, log
        self._targets = {"on_failure": on_failure, "on_success": on_success}

    def __call__(self, occasion: Occasion) -> NewRun | None:
        target = self._targets[occasion.key]
        if target is None:
            return None
        output = None
        if occasion.run is not None and occasion.run.attempt and takes_output(self._project, target):
            # With the store locked, but it is the end of a file that has just been written; and whoever rescues a
            # run has no earlier time for it.
            output = _output(occasion.run, occasion.mask, self._place)
        try:
            return hook_run(self._project, target, occasion, output, next(new_ids(1)))
        except HueyctlError as exc:
            if self._log is not None:
                whose = f"run {occasion.run.id[:8]}" if occasion.run else f"schedule {occasion.schedule}"
                self._log.error(f"{occasion.key} of {occasion.job} ({whose}): nothing was enqueued: {exc.message}")
            raise


def _output(run: Run, mask: Mask, place: Place) -> str:
    """The end of what the newest attempt has printed, on stdout and then on stderr, without its secrets."""
    found = []
    for path in (place.stdout(run.id, run.attempt), place.stderr(run.id, run.attempt)):
        with suppress(OSError):
            data = tail(path, TEXT_MAX)
            text = mask.end(data) if len(data) == TEXT_MAX else mask.whole(data)
            if len(data) == TEXT_MAX:
                text = text.partition(b"\n")[2] or text  # from the beginning of a line, where there is one
            found.append(text.decode(errors="replace"))
    return "".join(found)
