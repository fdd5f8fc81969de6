"""What every verb that changes the stack does first: lock it, see whose it is, clear what a killed verb left.

The lock is a file that the kernel unlocks even if its holder is killed, so a verb can be typed again after that.
"""

from __future__ import annotations

import fcntl
import pwd
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ops import stack, state
from ops.console import ROOT, Stop, quiet
from ops.stack import Container
from ops.state import State

# What the end of a short migration may take; after that, its owner should decide.
MIGRATION_SECONDS = 10.0


@contextmanager
def only_one(verb: str) -> Iterator[None]:
    """Hold the lock of this stack. Raises Stop if another verb that changes the stack is under way."""
    path = ROOT / f".{stack.settings().project}.lock"
    try:
        lock = path.open("a+")
    except PermissionError as refused:
        raise Stop(belongs_to_another(path)) from refused
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as held:
            raise Stop(f"Another change of this stack is under way. Wait until it ends, then: make {verb}") from held
        yield


@contextmanager
def change(verb: str) -> Iterator[State]:
    """Hold the lock and give the state, once nothing is left of a verb that was killed.

    Raises Stop if the stack is another folder's, or a migration is still under way.
    """
    with only_one(verb):
        found = stack.all_containers()
        refuse_another_checkout(found)
        if migrating(found):
            wait_for_migration(verb)
        remove([container.id for container in found if stack.TRIAL_LABEL in container.marks])
        try:
            yield state.current()
        except KeyboardInterrupt:
            print(f"\nCut off. To finish it, type: make {verb}", file=sys.stderr)
            raise


def belongs_to_another(path: Path) -> str:
    """Return the message that a file or folder of this checkout is another user's."""
    owner = "another user"
    for place in (path, *path.parents):
        # What is in a closed folder cannot be asked for its owner; the folder can.
        with suppress(OSError, KeyError):
            owner = pwd.getpwuid(place.lstat().st_uid).pw_name
            break
    return (
        f"{path} belongs to {owner}, and your user may not use it. Type make as that user, or make the files yours: "
        f'sudo chown -R "$(id -un)" {ROOT}'
    )


def refuse_another_checkout(found: Sequence[Container]) -> None:
    """Raise Stop if what carries this project's name was made from another folder, unless that was moved to here."""
    name = stack.settings().project
    # Compose writes down the folder as it was typed, which may be by a link.
    for folder in sorted(folder for folder in owners(found) if Path(folder).resolve() != ROOT):
        if Path(folder).is_dir():
            raise Stop(
                f"The stack {name!r} belongs to {folder}, and this is {ROOT}: the two would share containers and "
                "database. Nothing was changed. Give this one another name in .env: "
                f"COMPOSE_PROJECT_NAME={ROOT.name}-2; or, if this one is to take that stack over, move the other away."
            )
        print(f"{folder} does not exist any more: its stack {name!r} is taken over by {ROOT}")
        quiet(["docker", "volume", "rm", marker()])


def claim() -> None:
    """Write down whose stack this is, before its first container is made.

    Volumes outlive containers, and Compose does not write into them where they come from: one of ours does.
    """
    if str(ROOT) not in owners_of_volumes():
        labels = (f"{stack.PROJECT_LABEL}={stack.settings().project}", f"{stack.FOLDER_LABEL}={ROOT}")
        stack.docker("volume", "create", *(word for label in labels for word in ("--label", label)), marker())


def marker() -> str:
    """Return the name of the volume whose label names the folder of this stack; it is empty."""
    return f"{stack.settings().project}_folder"


def owners(found: Sequence[Container]) -> set[str]:
    """Return the folders from which these containers, and the volumes of this project, were made."""
    return {container.folder for container in found if container.folder and not container.one_off} | owners_of_volumes()


def owners_of_volumes() -> set[str]:
    """Return the folders that volumes of this project name."""
    mine = f"label={stack.PROJECT_LABEL}={stack.settings().project}"
    shown = f'{{{{.Label "{stack.FOLDER_LABEL}"}}}}'
    return set(filter(None, stack.docker("volume", "ls", "--filter", mine, "--format", shown).splitlines()))


def wait_for_migration(verb: str) -> None:
    """Wait for a migration that a killed verb began. Raises Stop if it takes longer: a second one would break it."""
    deadline = time.monotonic() + MIGRATION_SECONDS
    while under_way := migrating(stack.all_containers()):
        if time.monotonic() > deadline:
            raise Stop(
                f"A migration that an earlier command began is still under way. Follow it: "
                f"docker logs --follow {under_way[0].name}; when it has ended: make {verb}"
            )
        time.sleep(0.2)


def migrating(found: Sequence[Container]) -> list[Container]:
    """Return the running containers that migrate: those of a verb, and the service `release` as Compose starts it."""
    return [
        container
        for container in found
        if container.running
        and (stack.MIGRATION_LABEL in container.marks or (container.service == "release" and not container.one_off))
    ]


def remove(ids: Sequence[str]) -> None:
    """Remove containers at once, running or not."""
    if ids:
        quiet(["docker", "rm", "--force", *ids])


@contextmanager
def timed(title: str) -> Iterator[None]:
    """Print how long a step took."""
    began = time.monotonic()
    yield
    print(f"  {title:<36} {time.monotonic() - began:6.1f} s", flush=True)
