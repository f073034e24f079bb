"""How long a command takes to start after `enqueue` has returned, a worker being idle. Prints milliseconds, one a line.

usage: latency.py COUNT, in the folder of a jobs.toml whose job `clock` prints the nanoseconds since 1970
"""

from __future__ import annotations

import sys
import time

import hueyctl

queue = hueyctl.open_queue("jobs.toml")
queue.wait(queue.enqueue("clock").id)  # the first one opens the store
for _ in range(int(sys.argv[1])):
    time.sleep(0.1)  # idle
    run = queue.enqueue("clock")
    returned = time.time_ns()
    ended = queue.wait(run.id)
    print((int(ended.result) - returned) / 1e6)
