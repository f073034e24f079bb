"""What every test relies on: no setting of the machine's own, or of the shell's, reaches it."""

from __future__ import annotations

import os
import signal

import pytest

# A shell starts what it puts into the background with SIGINT ignored, and what is ignored stays so through every exec:
# then no test could press Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("HUEYCTL_")]:
        monkeypatch.delenv(name)
