"""Parameters, as they are declared and as a run has them."""

from __future__ import annotations

from collections.abc import Sequence

from hueyctl.app.public import PublicRun
from hueyctl.cli.answer import Block, Facts, Table
from hueyctl.cli.words import as_text, beginning, shown_default
from hueyctl.model.definition import Param


def declared_params(params: Sequence[Param]) -> list[Block]:
    """What a job or pipeline declares, one a line."""
    rows = [
        (
            param.name,
            param.type,
            "required" if param.required else shown_default(param),
            "" if param.choices is None or param.secret else as_text(param.choices),
            param.description,
        )
        for param in params
    ]
    return [Table(("param", "type", "default", "choices", "description"), rows, "params")] if rows else []


def given_params(run: PublicRun) -> list[Block]:
    """What a run was given, one a line."""
    return (
        [Facts([(name, beginning(as_text(value))) for name, value in run.params.items()], "params")]
        if run.params
        else []
    )
