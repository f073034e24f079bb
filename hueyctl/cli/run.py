"""`hueyctl run`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from hueyctl.cli.answer import Answer
from hueyctl.cli.settings import settings
from hueyctl.errors import HueyctlError

TROUBLE = 125
"""As with `docker run`: what hueyctl itself can't do has a code of its own, the others are the command's."""


def run(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A job of jobs.toml.")],
    params: Annotated[
        list[str] | None,
        typer.Argument(metavar="[param=value]...", help="param=@FILE reads it from a file (@-: stdin, @@: a plain @)."),
    ] = None,
) -> Iterator[Answer]:
    """Run one attempt of a job here and now, without the store. Nothing is recorded.

    It exits with the command's own code; 124: timed out, 125: hueyctl's own trouble, 126 and 127: it can't be
    started, 128+n: killed by signal n.
    """
    from hueyctl.cli.enqueue import parse_params
    from hueyctl.model.order import defined_job
    from hueyctl.model.params import resolve

    try:
        project = settings.session().project
        job = defined_job(project, name)
        values = resolve(job.params, parse_params(job, params or ()), what=job.name)
        yield Answer(notes=[f"{name} runs here and now; nothing is recorded"])
        from hueyctl.engine.once import run_once

        yield Answer(exit_code=run_once(project, job, values))
    except HueyctlError as exc:
        exc.exit_code = TROUBLE
        raise
