"""What every test relies on: no setting of the machine's own reaches it."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("HUEYCTL_")]:
        monkeypatch.delenv(name)
