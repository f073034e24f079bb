"""A `jobs.toml` to try things in, as the fixture `toml` gives it."""

from __future__ import annotations

from pathlib import Path

import pytest
from editor import underlined

from hueyctl.config.load import load
from hueyctl.errors import ConfigError
from hueyctl.model.definition import Project


class Toml:
    """One `jobs.toml`, written anew for each reading of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.dir = path.parent

    def read(self, text: str, **environ: str) -> Project:
        """The definitions in a file of this text, things that aren't built yet included.

        What is read is right, so an editor that knows the schema must not underline it.
        """
        self.path.write_text(text, encoding="utf-8")
        project = load(self.path, environ=environ)
        assert underlined(text) == []
        return project

    def problems(self, text: str, **environ: str) -> list[str]:
        """What is wrong with a file of this text, without its name; at least something must be."""
        with pytest.raises(ConfigError) as caught:
            self.read(text, **environ)
        for problem in caught.value.problems:
            assert problem.startswith("jobs.toml: ")
            assert problem.isprintable()
        return [problem.removeprefix("jobs.toml: ") for problem in caught.value.problems]

    def problem(self, text: str, **environ: str) -> str:
        """The one thing that is wrong with a file of this text."""
        (problem,) = self.problems(text, **environ)
        return problem
