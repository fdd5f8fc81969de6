"""What the verbs know of this checkout's stack: one small file, written under the lock, next to it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from ops import stack
from ops.console import ROOT


@dataclass(frozen=True)
class State:
    """What the last change of the stack made of it."""

    # Of COMPOSE_FILE, with the transport that runs; relative to this folder where they are in it
    files: tuple[str, ...]
    transport: str
    # The one that serves, or was the last to be started
    release: str = ""
    replicas: int = 1
    folder: str = str(ROOT)
    # Of each service, what it was made of: its settings, and the contents of what it mounts
    digests: Mapping[str, str] = field(default_factory=dict)
    # The releases that `make rollback` has left: the next one goes back further
    left: tuple[str, ...] = ()


def path() -> Path:
    """Return the file."""
    return ROOT / f".{stack.settings().project}.state.json"


def read() -> State | None:
    """Return what was written last, None if nothing (or nothing that can be read) was."""
    try:
        found = json.loads(path().read_text())
        # Another version of this may have written more, or less.
        known = {entry.name: found[entry.name] for entry in fields(State) if entry.name in found}
        return State(**{**known, "files": tuple(known["files"]), "left": tuple(known.get("left", ()))})
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def write(state: State) -> None:
    """Write the state, as a whole or not at all. Only for those who hold the lock."""
    new = path().with_suffix(".new")
    with new.open("w") as file:
        json.dump(asdict(state), file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(path())


def forget() -> None:
    """Remove the state: there is no stack any more."""
    path().unlink(missing_ok=True)


def current() -> State:
    """Return the state, or what can be known without the file: of a stack that an older version of this has made."""
    return read() or from_containers()


def from_containers() -> State:
    """Return the state that the newest uwsgi container shows; that of COMPOSE_FILE if there is none."""
    found = stack.containers("uwsgi")
    running = sum(container.running for container in found)
    newest = max(found, key=lambda container: container.created, default=None)
    files = newest.files if newest and newest.files else tuple(stack.settings().files.split(":"))
    return State(files, stack.transport_of(files), replicas=running or 1)


def current_files() -> list[str]:
    """Return the files that made the stack; if one of them is gone, those of COMPOSE_FILE over the same transport."""
    state = current()
    if all((ROOT / file).is_file() for file in state.files):
        return [*state.files]
    return wanted_files(state.transport)


def wanted_files(transport: str) -> list[str]:
    """Return the files that COMPOSE_FILE names, over this transport."""
    files = stack.settings().files.split(":")
    return stack.with_transport(files, transport) if transport in stack.TRANSPORTS else files


def relative(files: Sequence[str]) -> tuple[str, ...]:
    """Return files as they are named from this folder, so that the folder can be moved."""
    return tuple(
        str(Path(file).relative_to(ROOT)) if Path(file).is_absolute() and Path(file).is_relative_to(ROOT) else file
        for file in files
    )
