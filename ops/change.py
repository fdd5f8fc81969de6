"""What every verb that changes the stack does first: lock it, see whose it is, clear what a killed verb left.

The lock is a file that the kernel unlocks even if its holder is killed, so a verb can be typed again after that.
"""

from __future__ import annotations

import fcntl
import pwd
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ops import stack, state
from ops.console import ROOT, Stop, quiet
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
        refuse_another_checkout()
        wait_for_migration(verb)
        remove(one_offs(stack.TRIAL_LABEL))
        yield state.current()


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


def refuse_another_checkout() -> None:
    """Raise Stop if what carries this project's name was made from another folder, unless that was moved to here."""
    name = stack.settings().project
    # Compose writes down the folder as it was typed, which may be by a link.
    for folder in sorted(folder for folder in owners() if Path(folder).resolve() != ROOT):
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


def owners() -> set[str]:
    """Return the folders from which containers and volumes of this project were made."""
    return {container.folder for container in stack.containers() if container.folder} | owners_of_volumes()


def owners_of_volumes() -> set[str]:
    """Return the folders that volumes of this project name."""
    mine = f"label={stack.PROJECT_LABEL}={stack.settings().project}"
    shown = f'{{{{.Label "{stack.FOLDER_LABEL}"}}}}'
    return set(filter(None, stack.docker("volume", "ls", "--filter", mine, "--format", shown).splitlines()))


def wait_for_migration(verb: str) -> None:
    """Wait for a migration that a killed verb began. Raises Stop if it takes longer: a second one would break it."""
    deadline = time.monotonic() + MIGRATION_SECONDS
    while migrating := [*one_offs(stack.MIGRATION_LABEL, "running"), *running_release()]:
        if time.monotonic() > deadline:
            raise Stop(
                f"A migration that an earlier command began is still under way. Follow it: "
                f"docker logs --follow {migrating[0][:12]}; when it has ended: make {verb}"
            )
        time.sleep(0.2)


def running_release() -> list[str]:
    """Return the ids of the containers of the service `release`, as Compose itself starts it, that still run."""
    return [container.id for container in stack.containers("release") if container.running]


def one_offs(label: str, status: str = "") -> list[str]:
    """Return the ids of the containers that a verb has started for one command, and marked with this label."""
    wanted = [f"label={stack.PROJECT_LABEL}={stack.settings().project}", f"label={label}"]
    wanted += [f"status={status}"] * bool(status)
    filters = [word for each in wanted for word in ("--filter", each)]
    return stack.docker("ps", "--all", "--quiet", "--no-trunc", *filters).split()


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
