"""A job as a Python function: its parameters are arguments, its return value is the run's result."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

from hueyctl import current_run


def count(path: str, top: int) -> dict[str, Any]:
    """How many lines and words the text file at `path` has, and which `top` words it has most often."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    words: Counter[str] = Counter()
    for number, line in enumerate(lines, start=1):
        words.update(re.findall(r"\w+", line.lower()))
        current_run().progress(number, len(lines))
    print(f"read {path}")
    return {"lines": len(lines), "words": words.total(), "most": words.most_common(top)}
