"""`make stop`, `make down`, `make clean`, `make restart`: Compose's own commands, under the lock. And `make manage`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ops import change, logs, releases, stack, state
from ops.console import ROOT, Stop, quiet
from ops.up import developers


@contextmanager
def own_files(verb: str) -> Iterator[list[str]]:
    """Hold the lock and give the stack's files. Raises Stop if the stack is another folder's."""
    with change.only_one(verb):
        change.refuse_another_checkout(stack.all_containers())
        files = state.current_files()
        if stack.includes(files, stack.DEVELOPMENT):
            developers()
        yield files


def stop() -> None:
    """Stop the containers gracefully."""
    with own_files("stop") as files:
        halt(files)


def stop_seconds() -> int:
    """Return what it may take until all containers have stopped."""
    return stack.stop_seconds(stack.containers())


def halt(files: Sequence[str]) -> None:
    """Stop nginx first, so that requests it has accepted are still answered, then the rest."""
    for services in (["nginx"], []):
        stack.compose(files, "stop", *services, seconds=stop_seconds())


def down() -> None:
    """Stop and remove the containers; the data stays."""
    with own_files("down") as files:
        halt(files)
        logs.keep([container for container in stack.containers() if container.service != "release"])
        stack.compose(files, "down", "--remove-orphans", seconds=stop_seconds())


def clean() -> None:
    """Remove containers, images and data."""
    with own_files("clean CONFIRM=1") as files:
        stack.compose(files, "down", "--remove-orphans", "--volumes", "--rmi", "local", seconds=stop_seconds())
        releases.forget_all()
        state.forget()


def restart(service: str) -> None:
    """Restart a service as it is. Raises Stop if the stack has no such service."""
    with own_files("restart") as files:
        services = stack.config(files)["services"]
        if service not in services:
            raise Stop(f"There is no service {service!r}. S is one of: {', '.join(services)}")
        stack.compose(files, "restart", "--no-deps", service, seconds=stop_seconds())


def manage(words: Sequence[str]) -> None:
    """Run manage.py in a separate container, which no reload and no deploy ends. Does not return."""
    change.refuse_another_checkout(stack.all_containers())
    files = state.current_files()
    if stack.includes(files, stack.DEVELOPMENT):
        developers()
    if quiet(["docker", "image", "inspect", stack.config(files)["services"]["release"]["image"]]) is None:
        raise Stop("There is no image of your project yet. Build and start it: make up")
    # Without it Compose takes a terminal for granted where the output is one, though the input may be a pipe.
    terminal = [] if sys.stdin.isatty() and sys.stdout.isatty() else ["-T"]
    options = ["run", "--rm", "--no-deps", *terminal, "release", "python", "manage.py"]
    sys.stdout.flush()
    os.chdir(ROOT)
    words = words[words[:1] == ["--"] :]
    os.execvp("env", stack.compose_command(files, *options, *words))  # noqa: S606 - the words are the owner's
