"""The warm child: calls a Python job's function, attempt after attempt, for the guard that started it.

Runs by path under the job's own interpreter: it needs the standard library alone, and Python 3.8. It talks to the
guard on descriptor 3 (length-prefixed JSON, as in wire.py), never on stdin or stdout; a copy forked by the job never
does. User code is imported here and nowhere else, for `hueyctl check` too (`child.py --check`).

Promises: one answer per call, after everything printed has been flushed; whatever the function does short of ending
the process is an outcome.
"""

from __future__ import annotations

import json
import os
import sys

TYPE_CHECKING = False  # of typing, which takes longer to import than the rest together
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

GUARD_FD = 3
READ_SIZE = 64 * 1024  # as in wire.py
TRACEBACK_MAX = 16 * 1024
ERROR_MAX = 2000
HERE = os.path.dirname(os.path.abspath(__file__))


class Child:
    """The process: its place among forks, its standard streams, and the function once it is imported."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.streams = (sys.stdin, sys.stdout, sys.stderr)
        self.run_env: dict[str, str] = {}
        self.function: Callable[..., Any] | None = None
        self.buffer = bytearray()
        self.socket: tuple[int, int] | None = None

    def serve(self) -> None:
        """Answer calls until the guard hangs up."""
        self.socket = identity(GUARD_FD)
        while True:
            call = self.receive()
            if call is None:
                return
            outcome, fit = self.attempt(call)
            flush()
            if os.getpid() != self.pid:
                os._exit(0)  # a copy that the function forked and let return: its answer is not the attempt's
            fit = fit and self.has_its_streams() and not leftovers()
            self.send({"token": call["token"], "pid": self.pid, "outcome": outcome, "fit": fit})

    def attempt(self, call: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """How the call ended, as an outcome, and whether this process is fit for another."""
        sys.stdin, sys.stdout, sys.stderr = self.streams
        try:
            self.enter(call)
        except OSError as exc:
            return not_started(f"its folder can't be entered: {exc}"), False
        try:
            function = self.function or load(call["target"])
        except BaseException as exc:
            if os.getpid() != self.pid:
                raise
            show(exc)
            return not_started(f"cannot import {call['target']}: {line_of(exc)}"), False
        self.function = function
        try:
            params = with_input(function, call["params"], call.get("input"))
        except (OSError, ValueError) as exc:
            return not_started(f"its input can't be read: {exc}"), True
        try:
            return returned(call, run(function, params)), True
        except SystemExit as exc:
            if os.getpid() != self.pid:
                raise
            return {"type": "exited", "code": exit_code(exc)}, True
        except BaseException as exc:
            text = show(exc)
            return {"type": "raised", "error": line_of(exc), "traceback": text[-TRACEBACK_MAX:]}, True

    def enter(self, call: dict[str, Any]) -> None:
        """Set folder, variables and (at first) import path as the attempt is to find them."""
        os.chdir(call["dir"])
        for name in self.run_env:
            if name not in call["run_env"]:
                os.environ.pop(name, None)
        os.environ.update(call["run_env"])  # all: a job may have changed them below `os.environ`
        self.run_env = call["run_env"]
        if self.function is None:
            sys.path[:0] = [path for path in call["pythonpath"] if path not in sys.path]

    def has_its_streams(self) -> bool:
        """Are the standard streams those that this process began with, and open? Who wraps one (`sys.stdout =
        io.TextIOWrapper(sys.stdout.buffer)`) and is given the old one back has closed both with that."""
        if (sys.stdin, sys.stdout, sys.stderr) != self.streams:
            return False
        try:
            return not any(stream is not None and stream.closed for stream in self.streams)
        except ValueError:  # detached
            return False

    def receive(self) -> Any:
        """The next call; None: the guard has hung up."""
        while True:
            if len(self.buffer) >= 4:
                end = 4 + int.from_bytes(self.buffer[:4], "big")
                if len(self.buffer) >= end:
                    message = self.buffer[4:end]
                    del self.buffer[:end]
                    return json.loads(message)
            self.check_socket()
            piece = os.read(GUARD_FD, READ_SIZE)
            if not piece:
                return None
            self.buffer += piece

    def send(self, answer: dict[str, Any]) -> None:
        payload = json.dumps(answer).encode()
        message = memoryview(len(payload).to_bytes(4, "big") + payload)
        self.check_socket()
        try:
            while message:
                message = message[os.write(GUARD_FD, message) :]
        except OSError as exc:
            complain(f"hueyctl: the result can't be sent to the guard: {exc}\n")
            os._exit(70)

    def check_socket(self) -> None:
        """Whoever closes every descriptor, as daemons do, and opens a file then, has it where the guard was."""
        if identity(GUARD_FD) != self.socket:
            complain("hueyctl: the job closed the descriptor that its result goes to\n")
            os._exit(70)


def identity(fd: int) -> tuple[int, int] | None:
    """What is behind a descriptor; None where nothing is."""
    try:
        found = os.fstat(fd)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def load(target: str) -> Callable[..., Any]:
    """The callable that `module.path:function` names; raises whatever its import does."""
    module, _, name = target.partition(":")
    __import__(module)
    found: object = sys.modules[module]
    for part in name.split("."):
        found = getattr(found, part)
    if not callable(found):
        raise TypeError(f"{target} is not callable")
    return found


def with_input(function: Callable[..., Any], params: dict[str, Any], path: str | None) -> dict[str, Any]:
    """The parameters with the JSON in the file `path` as `input`, where the function wants it."""
    if path is None or not takes_input(function):
        return params
    with open(path, "rb") as file:
        return {**params, "input": json.load(file)}


def takes_input(function: Callable[..., Any]) -> bool:
    """Has the function a parameter `input` that can be given by its name?"""
    import inspect  # takes as long as the start of a child

    try:
        found = inspect.signature(function).parameters.get("input")
    except (TypeError, ValueError):
        return False
    return found is not None and found.kind in (found.POSITIONAL_OR_KEYWORD, found.KEYWORD_ONLY)


def run(function: Callable[..., Any], params: dict[str, Any]) -> Any:
    """Its return value; a coroutine is run to its end."""
    value = function(**params)
    if hasattr(value, "cr_await"):
        import asyncio

        value = asyncio.run(value)
    return value


def returned(call: dict[str, Any], value: Any) -> dict[str, Any]:
    """The outcome of a return value: None is no result, and what isn't JSON is an error."""
    if value is None:
        return {"type": "returned"}
    try:
        text = clean(json.dumps(value, allow_nan=False, ensure_ascii=False))
    except (TypeError, ValueError, RecursionError) as exc:
        error = f"TypeError: the return value of {call['target']} is not JSON: {one_line(exc)}"
        complain(error + "\n")
        return {"type": "raised", "error": error}
    size = len(text.encode())
    if size > call["result_max"]:
        why = f"the result has {size} bytes, more than result_max ({call['result_max']})"
        return {"type": "returned", "result_error": why}
    return {"type": "returned", "result": text}


def not_started(reason: str) -> dict[str, Any]:
    return {"type": "not-started", "code": 126, "reason": reason}


def exit_code(exc: SystemExit) -> int:
    """What Python's own exit would be: a text is printed, and counts as 1."""
    if exc.code is None:
        return 0
    if isinstance(exc.code, int):
        return int(exc.code) & 0xFF
    complain(f"{exc.code}\n")
    return 1


def line_of(exc: BaseException) -> str:
    """`Type: message` on one line, the type with its module as a traceback shows it."""
    kind = type(exc)
    name = kind.__qualname__
    if kind.__module__ not in ("builtins", "__main__"):
        name = f"{kind.__module__}.{name}"
    text = one_line(exc)
    return f"{name}: {text}" if text else name


def one_line(exc: BaseException) -> str:
    try:
        text = " ".join(str(exc).split())
    except Exception:
        text = "(its message can't be shown)"
    return clean(text if len(text) <= ERROR_MAX else text[: ERROR_MAX - 1] + "…")


def show(exc: BaseException) -> str:
    """Print the traceback on stderr, without the frames of this file, and return it."""
    import traceback

    trace = exc.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    try:
        lines = traceback.format_exception(type(exc), exc, trace)
    except Exception:
        lines = [line_of(exc), "\n"]
    # An import that fails goes through the import machinery, which nobody wants to read about.
    text = clean("".join(line for line in lines if "<frozen importlib" not in line))
    complain(text)
    return text


def complain(text: str) -> None:
    """Write to the attempt's stderr itself: `sys.stderr` may be anything by now."""
    flush()
    data = text.encode("utf-8", "backslashreplace")
    try:
        while data:
            data = data[os.write(2, data) :]
    except OSError:
        return


def flush() -> None:
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        try:
            stream.flush()  # type: ignore[union-attr]  # None where it is closed
        except Exception:
            continue  # None, closed, or a thing of the job's own


def clean(text: str) -> str:
    """`text` without lone surrogates, which are no UTF-8."""
    return text.encode("utf-8", "replace").decode("utf-8")


def leftovers() -> bool:
    """Does something of the attempt still run: a thread that isn't a daemon, or a process?"""
    threading = sys.modules.get("threading")
    if threading is not None and threading.active_count() > 1:
        main = threading.main_thread()
        if any(each is not main and not each.daemon for each in threading.enumerate()):
            return True
    try:
        while True:  # who has ended, and was never waited for, is nothing that runs
            pid = os.waitpid(-1, os.WNOHANG)[0]
            if pid == 0:
                return True
    except ChildProcessError:
        return False


class Fallback:
    """Finds a minimal `hueyctl`, with `current_run` alone, where the interpreter has none of its own."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
        from importlib.machinery import ModuleSpec
        from importlib.util import spec_from_file_location

        if name == "hueyctl":
            return ModuleSpec(name, Fallback, is_package=True)  # type: ignore[arg-type]  # a class is as good a loader
        if name == "hueyctl.current":
            return spec_from_file_location(name, os.path.join(os.path.dirname(HERE), "current.py"))
        return None

    @staticmethod
    def create_module(spec: Any) -> None:
        return None

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        from importlib import import_module

        current = import_module("hueyctl.current")
        vars(module).update(current_run=current.current_run, CurrentRun=current.CurrentRun)


def describe(target: str) -> dict[str, Any]:
    """What `hueyctl check` wants to know of a target."""
    import inspect

    try:
        function = load(target)
    except BaseException as exc:
        return {"target": target, "error": f"cannot import {target}: {line_of(exc)}"}
    kinds = ("positional", "either", "var-positional", "keyword", "var-keyword")  # in the order of inspect's own
    report: dict[str, Any] = {"target": target, "is_coroutine": inspect.iscoroutinefunction(function)}
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return report
    report["parameters"] = [
        {"name": each.name, "kind": kinds[each.kind], "has_default": each.default is not each.empty}
        for each in parameters
    ]
    return report


def prepare() -> None:
    """Make this process look to the job as if its own interpreter had just started."""
    if sys.path and os.path.abspath(sys.path[0]) == HERE:
        del sys.path[0]  # the neighbours of this file are nobody's modules
    sys.meta_path.append(Fallback)
    encoding = None if "PYTHONIOENCODING" in os.environ else "utf-8"
    for stream in (sys.stdout, sys.stderr):
        # By lines, so that what a job printed is there when it is killed, and can be followed before.
        stream.reconfigure(encoding=encoding, line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]  # a file


def close_in_copies() -> None:
    """A forked copy must not be able to answer for us, nor to read what is meant for us."""

    def close() -> None:
        try:
            os.close(GUARD_FD)
        except OSError:
            return

    os.register_at_fork(after_in_child=close)


def check() -> None:
    """Read a question from stdin, and write a report for each target, a line each, to what stdout is now."""
    question = json.load(sys.stdin)
    reports = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what modules print when they are imported is no report
    sys.path[:0] = question["pythonpath"]
    for target in question["targets"]:
        report = json.dumps(describe(target)).encode() + b"\n"
        while report:
            report = report[os.write(reports, report) :]


def call_once(fd: int) -> int:
    """Make the one call that the file behind `fd` describes, print its result, and return the exit code: for
    `hueyctl run`."""
    with open(fd, "rb") as file:
        call = json.load(file)
    outcome, _ = Child().attempt(call)
    if outcome["type"] == "returned" and outcome.get("result") is not None:
        print(outcome["result"])
    elif outcome["type"] == "returned" and outcome.get("result_error") is not None:
        complain(f"hueyctl: {outcome['result_error']}\n")
    flush()
    return int(outcome.get("code", outcome["type"] == "raised"))


def main() -> None:
    """Make one call (`--call FD`), look at targets (`--check`), or serve the guard until it hangs up."""
    prepare()
    if sys.argv[1:2] == ["--call"]:
        fd = int(sys.argv[2])
        sys.argv[1:] = []
        sys.exit(call_once(fd))
    if sys.argv[1:] == ["--check"]:
        check()
        return
    sys.argv[1:] = []
    os.set_inheritable(GUARD_FD, False)
    close_in_copies()
    Child().serve()


if __name__ == "__main__":
    main()
