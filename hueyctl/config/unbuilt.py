"""What `jobs.toml` can say and this version can't do yet: said clearly, never passed over."""

from __future__ import annotations

from collections.abc import Collection

from hueyctl import __version__
from hueyctl.config.reading import At, File
from hueyctl.model.definition import Project

JOB_KEYS = ("on_failure", "on_success")


def unbuilt(project: Project, *, defaults: Collection[str] = ()) -> list[str]:
    """A line for each thing in use that isn't built yet: `jobs.toml: jobs.fetch.lock: not built yet in …; remove it`.

    A key that stands in `defaults` ([defaults]) is named there once, and not at every job that gets it.
    """
    file = File(project.path.name, project.dir, {})
    at = At(file)
    places = [at / "defaults" / key for key in JOB_KEYS if key in defaults]
    for name, job in project.jobs.items():
        places += [
            at / "jobs" / name / key for key in JOB_KEYS if key not in defaults and getattr(job, key) is not None
        ]
    for place in places:
        place.wrong(f"not built yet in hueyctl {__version__}; remove it")
    if "://" in project.store:
        not_yet = f"PostgreSQL: not built yet in hueyctl {__version__}; name a file, here or in HUEYCTL_STORE"
        (at / "hueyctl" / "store").wrong(not_yet)
    return file.problems
