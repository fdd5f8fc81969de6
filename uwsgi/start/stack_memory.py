"""Has a worker that has grown too far leave after its request, before the kernel kills one in the middle of one.

uWSGI's reload-on-rss needs a number for each mem_limit and UWSGI_PROCESSES, counts the memory that all workers share
once for each, and reads /proc at every request: 20 us against 1 us here.
"""

import os
import resource
import signal
import sys
from pathlib import Path

# Of the container's limit, what workers may reach together; the rest is for /tmp and the kernel.
SHARE = 0.8
# So that workers that grow alike do not leave at the same time
STAGGER = 0.2
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def allowance(limit: int, shared: int, workers: int, worker: int) -> int:
    """Return the bytes by which a worker may grow; `shared` is what all have from the master."""
    return int((limit * SHARE - shared) / workers * (1 - STAGGER * (worker - 1) / workers))


def container_limit() -> int:
    """Return the container's limit in bytes, 0 if it has none."""
    for file in LIMITS:
        if file.is_file() and (text := file.read_text().strip()).isdigit():
            return int(text)
    return 0


class Growth:
    """How far this worker has grown, and may. Made in the master; the first look in a worker sets what it begins at."""

    def __init__(self) -> None:
        self.limit = container_limit()
        self.shared = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        self.begun = self.allowed = 0

    def begin(self, worker: int) -> None:
        """Note the memory of a worker that has just been forked."""
        self.begun = peak()
        workers = int(os.environ.get("UWSGI_PROCESSES", "1"))
        self.allowed = allowance(self.limit, self.shared, workers, worker) if self.limit else 0

    def check(self, worker: int) -> None:
        """Leave after this request, if this worker has grown too far."""
        if not self.begun:
            self.begin(worker)
        grown = peak() - self.begun
        if 0 < self.allowed < grown:
            self.allowed = 0
            print(
                f"worker {worker} has grown by {grown >> 20} MB and leaves after this request; "
                "a new one takes its place (docs/operations.md, More workers)",
                file=sys.stderr,
                flush=True,
            )
            # uwsgi.ini: a worker that gets SIGHUP leaves at the end of its loop.
            os.kill(os.getpid(), signal.SIGHUP)


def peak() -> int:
    """Return the most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
