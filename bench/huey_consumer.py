"""The yardstick: no-op tasks through Huey's own consumer and SQLite storage. Prints runs a second.

usage: huey_consumer.py DATABASE COUNT THREADS
"""

from __future__ import annotations

import os
import sys
import threading
import time

from huey import SqliteHuey

database, count, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
huey = SqliteHuey(filename=database)
done = threading.Semaphore(0)
times: list[float] = []


@huey.task()
def noop() -> None:
    times.append(time.perf_counter())
    done.release()


for _ in range(count):
    noop()
consumer = huey.create_consumer(workers=threads, worker_type="thread", periodic=False, initial_delay=0.01)
consumer.start()
for _ in range(count):
    done.acquire()
print(count / (max(times) - min(times)), flush=True)
os._exit(0)  # its threads poll on; nothing is left that matters
