"""What killed test runs have left behind, removed when the next run begins.

Their stacks start again with the engine, and each holds two to four of the thirty networks that Docker has:
with four of them left, a whole run found no room for its own.
"""

from __future__ import annotations

import fcntl
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from tests.support.stack import CHECKOUT, run

NAME = re.compile(r"test-([0-9a-f]{8})-[a-z]")
# In the order in which Docker lets them go
KINDS = {
    "container": (["ps", "--all", "--format", "{{.Names}}"], ["rm", "--force", "--volumes"]),
    "network": (["network", "ls", "--format", "{{.Name}}"], ["network", "rm"]),
    "volume": (["volume", "ls", "--format", "{{.Name}}"], ["volume", "rm"]),
}


def lock_of(checkout: str) -> Path:
    """Return the file that a run of this checkout holds locked for as long as it lives."""
    return Path(tempfile.gettempdir()) / f"test-{checkout}.run"


def begin() -> TextIO:
    """Mark a run of this checkout as alive until the returned file is closed, and remove what dead ones left.

    Raises RuntimeError if one is alive already: the two would take each other's containers away.
    """
    lock = lock_of(CHECKOUT).open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as held:
        lock.close()
        raise RuntimeError("another `make test` or `make prove` runs in this folder; wait for it, or end it") from held
    remove(lambda name: name.startswith(f"test-{CHECKOUT}-") or abandoned(name))
    return lock


def remove(left: Callable[[str], bool]) -> None:
    """Remove the containers, networks and volumes whose name is one of those left."""
    for kind, (listing, removal) in KINDS.items():
        names = [name for name in run("docker", *listing).stdout.split() if left(name)]
        if names:
            print(f"left behind by a killed test run, removed: {len(names)} {kind}s")
            run("docker", *removal, *names)


def abandoned(name: str) -> bool:
    """Return whether a run made this name, and is no more. What no run of this machine has made never is."""
    found = NAME.match(name)
    if not found:
        return False
    try:
        with lock_of(found[1]).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (FileNotFoundError, BlockingIOError):
        return False
    return True
