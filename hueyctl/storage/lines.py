"""Lines: the runs of one job that stand in one queue, in the order in which they are claimed."""

from __future__ import annotations

from typing import Final

from hueyctl.storage.rows import RUN_COLUMNS

# The heads of all lines, by two seeks a line. (queue, job) > (…, …) would be one, but SQLite only uses its first
# column here, and walks through every run of the line.
HEADS: Final = """
WITH RECURSIVE line (n, queue, job, priority) AS (
    SELECT * FROM (
        SELECT n, queue, job, priority FROM runs WHERE state = 'queued' AND gate IS NULL
        ORDER BY queue, job, priority DESC, n LIMIT 1
    ) AS first
    UNION ALL
    SELECT next.n, next.queue, next.job, next.priority FROM line JOIN runs AS next ON next.n = coalesce(
        (SELECT n FROM runs WHERE state = 'queued' AND gate IS NULL AND queue = line.queue AND job > line.job
         ORDER BY job, priority DESC, n LIMIT 1),
        (SELECT n FROM runs WHERE state = 'queued' AND gate IS NULL AND queue > line.queue
         ORDER BY queue, job, priority DESC, n LIMIT 1)
    )
)
SELECT -priority, n, queue, job FROM line
"""

# The first of one line.
LINE: Final = f"""
SELECT {RUN_COLUMNS} FROM runs WHERE state = 'queued' AND gate IS NULL AND queue = ? AND job = ?
ORDER BY priority DESC, n LIMIT ?
"""
