"""One change at a time: a file that the kernel unlocks even if its holder is killed."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from ops import stack
from ops.console import ROOT, Stop


@contextmanager
def only_one(verb: str) -> Iterator[IO[str]]:
    """Hold the lock of this stack. Raises Stop if another verb that changes it is under way."""
    path = ROOT / f".{stack.project()}.lock"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as held:
            raise Stop(f"Another change of this stack is under way. Wait until it ends, then: make {verb}") from held
        try:
            yield file
        finally:
            # Not reached by one that is killed: its note stays, and the next one ends what it began.
            note(file, None)


def unfinished(file: IO[str]) -> int | None:
    """Return how many replicas a deploy was to end with that was killed before its end, None if none was."""
    file.seek(0)
    text = file.read()
    return int(json.loads(text)["replicas"]) if text.strip() else None


def note(file: IO[str], replicas: int | None) -> None:
    """Write down how many replicas this deploy is to end with; None once it has ended."""
    file.seek(0)
    file.truncate()
    if replicas is not None:
        json.dump({"replicas": replicas}, file)
    file.flush()
