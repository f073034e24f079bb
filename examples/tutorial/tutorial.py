"""The tutorial's Python jobs: plain functions, whose parameters are arguments and whose return value is the result."""

import os
import time

from hueyctl import current_run


def flaky() -> str:
    """Fail three times, and succeed at the fourth attempt."""
    attempt = current_run().attempt
    if attempt < 4:
        raise ConnectionError(f"attempt {attempt}: nobody answers")
    return f"attempt {attempt} got through"


def daily_sync() -> None:
    """Take a moment, and fail if another one is at it: the file is made by who comes first, and by nobody else."""
    mark = "build/sync.running"
    os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    time.sleep(0.3)
    os.unlink(mark)
    print("synchronised")


def fetch_number(number: int) -> int:
    """What a service would have answered."""
    return number


def transform_number(input: int, factor: int) -> int:
    """`input` is the result of the step before."""
    return input * factor


def store_result(input: int) -> dict[str, int]:
    """Write it down; what is returned is the result of the pipeline."""
    with open("build/number.txt", "w", encoding="utf-8") as file:
        print(input, file=file)
    return {"stored": input}
