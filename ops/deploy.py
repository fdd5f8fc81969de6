"""`make deploy`, `make rollback`, `make scale`, `make reload`: changes of the running stack that lose no request.

Everything that can be wrong with a release is found before it may take a request: it is built, imported,
checked, and tried in a container that is not attached to the pool. New containers start next to the old ones,
which go only when the new ones are healthy. If a verb is killed at any step, the same command run again ends
what it began.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

from ops import preflight, releases, stack
from ops.console import ROOT, Stop, quiet
from ops.stack import Container

# Docker itself calls a container unhealthy (start_period, retries); this only bounds the waiting.
HEALTHY_SECONDS = 180
# An import and Django's checks; a project that hangs at its import is found by this.
CHECK_SECONDS = 120
# What migrations may take
RELEASE_SECONDS = 1800
# worker-reload-mercy (33 s, uwsgi/uwsgi.ini) and a start
RELOAD_SECONDS = 75
# Of this machine's memory, what uwsgi containers may be promised together.
MEMORY_SHARE = 0.8
PIDFILE = "/run/uwsgi/uwsgi.pid"


@contextmanager
def only_one(verb: str) -> Iterator[IO[str]]:
    """Hold the lock of this stack: a file that the kernel unlocks even if its holder is killed.

    Raises Stop if another verb that changes the stack is under way.
    """
    with (ROOT / f".{stack.settings().project}.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as held:
            raise Stop(f"Another change of this stack is under way. Wait until it ends, then: make {verb}") from held
        try:
            yield lock
        finally:
            # Not reached by a verb that is killed: its note stays, and the next verb ends what it began.
            lock.truncate(0)


def unfinished(lock: IO[str]) -> int | None:
    """Return how many replicas a verb that was killed was to end with, None if none was killed."""
    lock.seek(0)
    note = lock.read().strip()
    return int(json.loads(note)["replicas"]) if note else None


@contextmanager
def change(verb: str) -> Iterator[tuple[list[str], int]]:
    """Hold the lock, remove what a killed verb left, and give the stack's files and its number of replicas.

    Raises Stop if nothing runs, or what runs is the stack of `make dev`.
    """
    with only_one(verb) as lock:
        running, files = stack.workers(), stack.current_files()
        if stack.includes(files, stack.DEVELOPMENT):
            raise Stop("This is the stack of `make dev`, which has no releases. For production: make up, make up-unix")
        tidy_up()
        replicas = unfinished(lock) or len(running)
        lock.truncate(0)
        json.dump({"replicas": replicas}, lock)
        lock.flush()
        yield files, replicas


def deploy() -> None:
    """Deploy the code in app/. Raises Stop, while the old release keeps serving, if anything is wrong with it."""
    with change("deploy") as (files, replicas):
        preflight.check(stack.config(files))
        releases.remember()
        release = releases.new_name()
        try:
            with timed("build"):
                stack.build(files, "uwsgi", release=release)
            with timed("check"):
                check(files, release)
            with timed("release (migrations, static files)"):
                stack.run_release(files, release=release, seconds=RELEASE_SECONDS)
            with timed("trial, not attached to the pool"):
                trial(files, release)
            switch(files, release, replicas)
        except BaseException:
            releases.forget(release)
            raise
        releases.remember()
        print(f"\n{release} serves in {replicas} container{'' if replicas == 1 else 's'}. Back: make rollback")


def rollback() -> None:
    """Return to the previous release, by its image. Raises Stop if there is none."""
    with change("rollback") as (files, replicas):
        previous = releases.previous()
        if previous is None:
            raise Stop("There is no release before the running one. To see which are kept: make releases")
        with timed("static files"):
            stack.run_release(files, "release.py", "--publish-only", release=previous)
        switch(files, previous, replicas)
        print(f"\n{previous} serves again. Forward: make deploy")


def scale(wanted: str) -> None:
    """Run as many uwsgi containers as wanted. Raises Stop for a number that the memory does not allow."""
    with change("scale") as (files, _):
        limit = int(stack.config(files)["services"]["uwsgi"]["mem_limit"])
        total = int(stack.docker("info", "--format", "{{.MemTotal}}"))
        most = max(1, int(total * MEMORY_SHARE / limit))
        if not wanted.isdigit() or not 1 <= int(wanted) <= most:
            raise Stop(
                f"N is {wanted!r}, not a number from 1 to {most}: each container may take {limit >> 20} MB "
                f"(mem_limit), and this machine has {total >> 20} MB. Type: make scale N=2"
            )
        serving = stack.workers()
        with timed(f"{len(serving)} to {wanted}"):
            if int(wanted) > len(serving):
                wait_healthy(start_more(files, int(wanted) - len(serving)))
            retire(serving[int(wanted) :])


def reload() -> None:
    """Reload each uwsgi container and wait until it is healthy again. Raises Stop if one does not come back."""
    with only_one("reload"):
        for container in stack.workers():
            began = time.monotonic()
            stack.docker("exec", container.id, "uwsgi", "--reload", PIDFILE)
            wait_for_restart(container)
            print(f"{container.name} reloaded in {time.monotonic() - began:.1f} s")


def wait_for_restart(before: Container) -> None:
    """Wait until a container has started again since `before` was read, and is healthy. Raises Stop if it does not."""
    stack.wait_healthy(
        lambda: present([before.id]),
        lambda _: False,  # it ends and comes back, which looks like a failure on the way
        seconds=RELOAD_SECONDS,
        message=f"{before.name} was not healthy within {RELOAD_SECONDS} s of its reload (above).",
        ready=lambda found: stack.all_healthy(found) and found[0].started != before.started,
    )


def present(ids: Sequence[str]) -> list[Container]:
    """Return these containers. Raises Stop if one is gone."""
    found = stack.inspect(ids)
    if len(found) < len(ids):
        raise Stop("A uwsgi container was removed while it started. Start the stack again: make up or make up-unix")
    return found


def tidy_up() -> None:
    """Remove the trials and the stopped uwsgi containers of this stack."""
    mine = ["--filter", f"label={stack.PROJECT_LABEL}={stack.settings().project}"]
    trials = stack.docker("ps", "--all", "--quiet", *mine, "--filter", f"label={stack.ONE_OFF_LABEL}=True").split()
    remove(trials + [container.id for container in stack.containers("uwsgi") if not container.running])


def remove(ids: Sequence[str]) -> None:
    """Remove containers at once, running or not."""
    if ids:
        quiet(["docker", "rm", "--force", *ids])


def check(files: Sequence[str], release: str) -> None:
    """Import the new code with its real settings, run Django's checks and say which migrations it brings."""
    output = stack.run_release(files, "check_project.py", "--deploy", release=release, seconds=CHECK_SECONDS)
    for line in output.splitlines():
        print(f"    {line}")


def trial(files: Sequence[str], release: str) -> None:
    """Start the new release as it will run, but without the pool, until it is healthy on its own."""
    server = ["uwsgi", "--ini", "/etc/uwsgi/uwsgi.ini"]
    output = stack.compose(files, "run", "--detach", "--no-deps", "uwsgi", *server, release=release)
    container = output.split()[-1]
    try:
        wait_healthy([container])
    finally:
        remove([container])


def switch(files: Sequence[str], release: str, replicas: int) -> None:
    """Start `replicas` containers of a release next to those that serve, and retire these."""
    before = releases.running()
    releases.name(f"{releases.repository()}:{release}", "latest")
    new: list[str] = []
    try:
        with timed(f"start of {replicas}"):
            new = start_more(files, replicas)
            wait_healthy(new)
    except BaseException:
        remove(new)
        if before:
            releases.name(before, "latest")
        raise
    old = [container for container in stack.containers("uwsgi") if container.id not in new]
    with timed(f"retirement of {len(old)}"):
        retire(old)


def start_more(files: Sequence[str], count: int) -> list[str]:
    """Start `count` more containers of what `latest` is, and return their ids.

    Compose counts a stopped container as one of those wanted and starts it again, with its old code. One that
    a killed deploy was stopping may end at any moment: hence the tidying up, and the second and third look.
    """
    known = {container.id for container in stack.containers("uwsgi")}
    options = ["--detach", "--no-build", "--no-deps", "--no-recreate"]
    new: list[str] = []
    for _ in range(3):
        tidy_up()
        total = len(stack.containers("uwsgi")) + count - len(new)
        stack.compose(files, "up", *options, "--scale", f"uwsgi={total}", "uwsgi")
        new = [container.id for container in stack.containers("uwsgi") if container.id not in known]
        if len(new) >= count:
            return new
    raise Stop("The old containers keep stopping and starting. Look at: make ps, then try again")


def wait_healthy(ids: Sequence[str]) -> None:
    """Wait until each of these new containers is healthy. Raises Stop with the end of the log of one that fails."""
    stack.wait_healthy(
        lambda: present(ids),
        lambda container: not container.running or container.restarts > 0 or container.health == "unhealthy",
        seconds=HEALTHY_SECONDS,
        message="The new release does not become healthy (above). The old one keeps serving.",
    )


def retire(old: Sequence[Container]) -> None:
    """Stop containers gracefully, one by one (stop_grace_period bounds each), and remove them."""
    for container in old:
        stack.docker("stop", container.id, seconds=120)
        stack.docker("rm", container.id)


@contextmanager
def timed(title: str) -> Iterator[None]:
    """Print how long a step took."""
    began = time.monotonic()
    yield
    print(f"  {title:<36} {time.monotonic() - began:6.1f} s", flush=True)
