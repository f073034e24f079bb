"""What `jobs.toml` can say and this version can't do yet: said clearly, never passed over."""

from __future__ import annotations

from hueyctl import __version__
from hueyctl.config.reading import At, File
from hueyctl.model.definition import Project


def unbuilt(project: Project) -> list[str]:
    """A line for each thing in use that isn't built yet: `jobs.toml: hueyctl.store: PostgreSQL: not built yet in …`."""
    file = File(project.path.name, project.dir, {})
    at = At(file)
    if "://" in project.store:
        not_yet = f"PostgreSQL: not built yet in hueyctl {__version__}; name a file, here or in HUEYCTL_STORE"
        (at / "hueyctl" / "store").wrong(not_yet)
    return file.problems
