"""The `hueyctl` command: finds the subcommand, runs it, shows its answer, and turns every error into an exit code.

A subcommand's module is imported only when it is called (or listed): that is what keeps `hueyctl enqueue` quick.
"""

from __future__ import annotations

import gc

# What is loaded now stays loaded: looking through it for garbage would be a twelfth of the time of a short command.
gc.disable()

# ruff: noqa: E402 (the imports are what both are for)
import sys

# msgspec asks it for two names that Python has by itself by now: a thirtieth of a short command. Typer requires it, so
# that it is there, and doesn't load it.
_absent = "typing_extensions" not in sys.modules
if _absent:
    sys.modules["typing_extensions"] = None  # type: ignore[assignment]  # what import takes for "there is none"
import msgspec  # noqa: F401 (so that all others find it loaded)

if _absent:
    del sys.modules["typing_extensions"]

import os
import re
import signal
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from hueyctl.cli import ctrl_c
from hueyctl.cli.groups import known_command
from hueyctl.cli.render import Screen, report
from hueyctl.cli.settings import remember_debug, remember_file, remember_json, settings
from hueyctl.errors import HueyctlError, Interrupted, Refused, UsageError

COMMANDS = {
    "init": "project:init",
    "check": "project:check",
    "jobs": "project:jobs",
    "schema": "project:schema",
    "enqueue": "enqueue:enqueue",
    "run": "run:run",
    "worker": "worker:worker",
    "inspect": "inspect:inspect",
    "runs": "runs:runs",
    "logs": "runs:logs",
    "result": "runs:result",
    "wait": "runs:wait",
    "revoke": "change:revoke",
    "retry": "change:retry",
    "pause": "change:pause",
    "resume": "change:resume",
    "schedule": "schedule:schedule",
    "events": "events:events",
    "graph": "pipeline:graph",
    "top": "top:top",
    "stats": "stats:stats",
    "metrics": "metrics:metrics",
    "doctor": "upkeep:doctor",
    "prune": "upkeep:prune",
    "backup": "upkeep:backup",
}
"""Each command's function (or, for a group, its Typer), as `module:name` in this package."""

# Typer brings its own copy of click, or needs click, depending on its version: what it exports leads to either.
_ClickUsageError: type[Exception] = typer.BadParameter.__mro__[1]
_ClickError: type[Exception] = typer.BadParameter.__mro__[2]

File = Annotated[
    str | None,
    typer.Option(
        "--file",
        metavar="PATH",
        help="The jobs.toml to use; otherwise HUEYCTL_FILE, or jobs.toml here or in a parent folder.",
        callback=remember_file,
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.", callback=remember_debug)]
Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.", callback=remember_json)]


def main() -> NoReturn:
    """Run the command line of this process, and exit."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        ctrl_c.heed()  # from here on, what it ends is put in order
    exit_code = run(sys.argv[1:])
    if "hueyctl.engine" in sys.modules:
        sys.exit(exit_code)  # jobs may have run in this process, and want their exit handlers
    # Taking the interpreter apart is an eighth of the time of a short command, and nothing of ours waits for it.
    with suppress(OSError):
        sys.stdout.flush()
    with suppress(OSError):
        sys.stderr.flush()
    os._exit(exit_code)


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns the exit code."""
    _have_standard_streams()
    settings.reset()
    # Read here too, for errors that come before any option is.
    settings.as_json = "--json" in _before_dashes(arguments)
    settings.debug = "--debug" in _before_dashes(arguments)
    try:
        return _run(list(arguments))
    except BrokenPipeError:
        # Whoever read us has seen enough. Python would complain about what is left when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except KeyboardInterrupt:
        return Interrupted.exit_code
    except Exception as exc:
        if settings.debug:
            _print_traceback(exc)
        shown = f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
        report(HueyctlError(f"a bug in hueyctl: {shown}", hint="--debug shows where"), as_json=settings.as_json)
        return HueyctlError.exit_code
    finally:
        settings.close()


def _run(arguments: list[str]) -> int:
    try:
        answers = _root().main(arguments, prog_name="hueyctl", standalone_mode=False)
        if isinstance(answers, int):
            return answers  # --help, --version, or the exit code of what was run
        return Screen(sys.stdout, as_json=settings.as_json).show(answers) if answers is not None else 0
    except HueyctlError as exc:
        error = exc
    except _ClickError as exc:
        error = _usage_error(exc)
    except OSError as exc:
        # What typer prints by itself; commands leave that to the screen.
        if isinstance(exc, BrokenPipeError) or not {"-h", "--help", "--version"} & set(_before_dashes(arguments)):
            raise
        error = Refused(f"the answer could not be written: {exc.strerror}")
    except typer.Abort:
        return Interrupted.exit_code
    if settings.debug:
        _print_traceback(error)
    report(error, as_json=settings.as_json)
    return error.exit_code


class _Commands(TyperGroup):
    """The commands, each imported when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return _built(cmd_name) if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        known_command(ctx, args[0], COMMANDS, elsewhere=_ELSEWHERE)
        return super().resolve_command(ctx, args)


_ELSEWHERE = {
    **dict.fromkeys(("start", "status", "stop", "reload"), "worker"),
    **dict.fromkeys(("next", "trigger", "backfill"), "schedule"),
}
"""Commands of a group that are looked for without it."""


def _root() -> Any:
    app = typer.Typer(
        cls=_Commands,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},  # subcommands have them from here
    )
    app.callback()(_hueyctl)
    return typer.main.get_command(app)


def _show_version(wanted: bool) -> bool:
    if wanted:
        from hueyctl import __version__

        typer.echo(f"hueyctl {__version__}")
        raise typer.Exit
    return wanted


Version = Annotated[bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)]


def _hueyctl(file: File = None, version: Version = False, json: Json = False, debug: Debug = False) -> None:
    """A durable job runner on Huey, declared in one file: jobs.toml.

    hueyctl worker start runs the jobs; hueyctl enqueue NAME gives it one to run; hueyctl events --follow shows what
    happens.
    """


def _built(name: str) -> Any:
    module, _, attribute = COMMANDS[name].partition(":")
    found = getattr(import_module(f"hueyctl.cli.{module}"), attribute)
    gc.enable()
    if isinstance(found, typer.Typer):
        group: Any = typer.main.get_command(found)
        for command in group.commands.values():
            command.params += _common(command)
        return group
    command = _command(found, name)
    command.params += _common(command)
    return command


def _command(function: Any, name: str) -> Any:
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(name)(function)
    return typer.main.get_command(app)


def _common(command: Any) -> list[Any]:
    """The options that every command takes; they go to the settings, not to its function."""

    def shared(file: File = None, json: Json = False, debug: Debug = False) -> None: ...

    params: list[Any] = [param for param in _command(shared, "shared").params if param.name != "help"]
    for param in params:
        param.expose_value = False
    return params


def _usage_error(exc: Any) -> HueyctlError:
    """What typer found wrong with the arguments, in our words and with our exit code."""
    ctx: Any = getattr(exc, "ctx", None)
    command = ctx.command_path if ctx else "hueyctl"
    if type(exc).__name__ == "NoArgsIsHelpError":
        if not settings.as_json:
            sys.stderr.write(f"{ctx.get_help()}\n\n")
        return UsageError("no command was given", hint=f"`{command} --help` lists the commands")
    message = exc.format_message().strip().rstrip(".")
    for theirs, ours in _OUR_WORDS:
        message = re.sub(theirs, ours, message)
    error = UsageError(
        message if message.startswith("-") else message[:1].lower() + message[1:],
        hint=f"`{command} --help` shows what it takes",
    )
    if command == "hueyctl run":
        error.exit_code = RUN_TROUBLE
    return error


_OUR_WORDS = (
    (r"^Invalid value for '(--[\w-]+)'( / '-\w')?:", r"\1:"),
    (r"'(.*)' is not a valid int( range)?$", r'expected a whole number, got "\1"'),
    (r"(\S+) is not in the range x>=(\d+)$", r"expected \2 or more, got \1"),
    (r"(\S+) is not in the range (\d+)<=x<=(\d+)$", r"expected \2 to \3, got \1"),
)

RUN_TROUBLE = 125
"""`hueyctl run` exits as `docker run` does: codes that a command may have are left to the command."""


def _print_traceback(exc: BaseException) -> None:
    import traceback

    traceback.print_exception(exc)


def _before_dashes(arguments: Sequence[str]) -> Sequence[str]:
    arguments = list(arguments)
    return arguments[: arguments.index("--")] if "--" in arguments else arguments


def _have_standard_streams() -> None:
    # Python has None for a stream that was closed by who started us; what is opened next would take its number.
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            fd = os.open(os.devnull, os.O_RDWR)
            if fd != number:
                os.dup2(fd, number)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 (for our life)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
