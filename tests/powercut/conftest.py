"""The recorder, built once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import recording


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recorder; where it can't be built, these tests are skipped with a notice."""
    if sys.platform != "linux" or sys.maxsize < 2**32:
        pytest.skip("the recorder is for 64-bit Linux: power cuts were not tried")
    library = recording.built(tmp_path_factory.mktemp("recorder"))
    if library is None:
        pytest.skip("there is no C compiler (cc): power cuts were not tried")
    return library
