"""`hueyctl backup`, `prune` and `doctor`: looking after the store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from hueyctl.cli.answer import Answer, Block, Line, Lines, Table
from hueyctl.cli.options import timeout
from hueyctl.cli.settings import here, settings
from hueyctl.cli.words import count, size
from hueyctl.model.definition import Retention


def doctor(
    full: Annotated[bool, typer.Option("--full", help="Look at every row and index; takes a while.")] = False,
) -> Answer:
    """Check the file, the store, and what goes on in it. Exit 1 if there is a problem."""
    from hueyctl.app.clock import utc_now
    from hueyctl.app.doctor import doctor as examine

    checks = list(examine(settings.file, cwd=here(), environ=os.environ, full=full, now=utc_now()))
    found = [check for check in checks if check.state != "ok"]
    problems = sum(check.state == "problem" for check in found)
    blocks: list[Block] = [Table(("check", "state", "found"), [(each.name, each.state, each.found) for each in checks])]
    if found:
        advice = [line for each in found for line in (f"{each.name}: {each.found}", f"  {each.hint}")]
        blocks.append(Lines(advice, "what to do"))
    return Answer(
        documents=[{"checks": msgspec.to_builtins(checks)}],
        blocks=blocks,
        notes=[f"{count(problems, 'problem')}, {count(len(found) - problems, 'warning')}"] if found else [],
        exit_code=1 if problems else 0,
    )


def backup(
    target: Annotated[str, typer.Argument(metavar="FILE", help="Where the copy goes.")],
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it is there.")] = False,
) -> Answer:
    """Copy the store into one file, consistently, while workers go on. The output of runs is not in it."""
    from hueyctl.app.backup import back_up

    session = settings.store_session()
    made = back_up(session, Path(target), replace=force)
    document = {"file": str(made.file), "size": made.size, "runs": made.runs, "last_seq": made.last_seq}
    output = session.place.output
    return Answer(
        documents=[{"backup": document}],
        blocks=[Line(f"wrote {target}: {count(made.runs, 'run')}, {size(made.size)}, checked")],
        notes=[f"what runs have printed is not in it: that is in {output}"],
    )


def prune(
    succeeded: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Keep succeeded runs so long; otherwise as jobs.toml says.")
    ] = None,
    failed: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Keep failed, revoked, expired and skipped runs so long.")
    ] = None,
    events: Annotated[str | None, typer.Option(metavar="DURATION", help="Keep events so long.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Delete nothing, say what would be.")] = False,
) -> Answer:
    """Delete what is past its retention. Ended runs with their output, and events; workers do so by themselves."""
    from hueyctl.app import prune as pruning
    from hueyctl.app.clock import utc_now

    given = {
        name: kept
        for name, text in (("succeeded", succeeded), ("failed", failed), ("events", events))
        if (kept := timeout(name, text)) is not None
    }
    # How long things are kept says the file: what can't be read there must not be deleted by what is usual.
    session = settings.store_session() if len(given) == len(Retention.__struct_fields__) else settings.session()
    retention = msgspec.structs.replace(session.project.retention, **given)
    found = (pruning.would_prune if dry_run else pruning.prune)(session, retention, now=utc_now())
    parts = [count(found.runs, "run"), count(found.events, "event")]
    parts += [f"{count(found.folders, 'output folder')} without a run"] if found.folders else []
    kept_s = {name: getattr(retention, name).total_seconds() for name in retention.__struct_fields__}
    return Answer(
        documents=[{"pruned": {**msgspec.to_builtins(found), "dry_run": dry_run, "retention": kept_s}}],
        blocks=[Line(f"{'would delete' if dry_run else 'deleted'} {', '.join(parts)}")],
    )
