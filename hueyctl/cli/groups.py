"""Groups of commands, and what is said about a command that there isn't."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from typer.core import TyperGroup

from hueyctl.errors import UsageError


class Group(TyperGroup):
    """Commands behind a common word, like `worker`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        known_command(ctx, args[0], self.commands)
        return super().resolve_command(ctx, args)


def known_command(ctx: Any, name: str, names: Collection[str], *, elsewhere: Mapping[str, str] | None = None) -> None:
    """Raises UsageError unless `name` is one of these, with the group that has it (`elsewhere`) or the nearest."""
    if name not in names:
        from hueyctl.model.wording import did_you_mean, quoted

        group = "".join(f"{word} " for word in ctx.command_path.split()[1:])
        there = (elsewhere or {}).get(name)
        meant = f"; did you mean {quoted(f'{there} {name}')}?" if there else did_you_mean(name, names)
        message = f"there is no {group}command {quoted(name)}{meant}"
        raise UsageError(message, hint=f"`{ctx.command_path} --help` lists the commands")
