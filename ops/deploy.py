"""`make deploy`, `make rollback`, `make scale`: new containers beside the old, then the old ones leave.

Everything that can be wrong with a release is found before it may take a request: it is built, imported,
checked, and tried in a container that is not attached to the pool. Killed at any step, the same command
run again ends what was begun; the old containers go only when the new ones are healthy.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

from ops import lock, preflight, releases, stack
from ops.build import build
from ops.console import Stop, quiet
from ops.stack import Container

# Docker calls a container unhealthy by itself (start_period, retries); this only bounds the waiting.
HEALTHY_SECONDS = 180
# An import and Django's checks; a project that hangs at its import is found by this.
CHECK_SECONDS = 120
# What migrations may take
RELEASE_SECONDS = 1800
# Of this machine's memory, what uwsgi containers may be promised together.
MEMORY_SHARE = 0.8


def deploy() -> None:
    """Bring the code in app/ into service. Raises Stop, with the old release serving on, if anything is wrong."""
    with lock.only_one("deploy") as held:
        files, replicas = beginning(held)
        preflight.check(stack.config(files))
        releases.remember()
        release = releases.new_name()
        try:
            with timed("build"):
                build(files, "uwsgi", release=release)
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
        print(f"\n{release} serves in {replicas} container{'s' * (replicas > 1)}. Back: make rollback")


def rollback() -> None:
    """Bring the release before the running one back, by its image. Raises Stop if there is none."""
    with lock.only_one("rollback") as held:
        files, replicas = beginning(held)
        image = releases.running()
        known = releases.known()
        position = next((number for number, one in enumerate(known) if one.image == image), -1)
        older = [one for one in known[position + 1 :] if one.image != image]
        if not older:
            raise Stop("There is no release before the running one. What is kept: make releases")
        with timed("static files"):
            stack.run_release(files, "release.py", "--publish-only", release=older[0].name)
        switch(files, older[0].name, replicas)
        print(f"\n{older[0].name} serves again. Forward: make deploy")


def scale(wanted: str) -> None:
    """Run as many uwsgi containers as wanted. Raises Stop for a number that the memory does not allow."""
    with lock.only_one("scale") as held:
        files, _ = beginning(held)
        limit = int(stack.config(files)["services"]["uwsgi"]["mem_limit"])
        total = int(stack.docker("info", "--format", "{{.MemTotal}}"))
        most = max(1, int(total * MEMORY_SHARE / limit))
        if not wanted.isdigit() or not 1 <= int(wanted) <= most:
            raise Stop(
                f"N is {wanted!r}, not a number from 1 to {most}: each container may take {limit >> 20} MB "
                f"(mem_limit), and this machine has {total >> 20} MB. Type: make scale N=2"
            )
        now = stack.workers()
        with timed(f"{len(now)} to {wanted}"):
            if int(wanted) > len(now):
                wait_healthy(start_beside(files, int(wanted) - len(now)))
            retire(now[int(wanted) :])


def beginning(held: IO[str]) -> tuple[list[str], int]:
    """Return the files that made what runs and the number of replicas, after tidying up what a killed run left."""
    running = stack.workers()
    files = stack.running_files()
    assert files is not None
    if stack.is_development(files):
        raise Stop("This is the stack of `make dev`, which has no releases. For production: make up (or make up-unix)")
    tidy_up()
    replicas = lock.unfinished(held) or len(running)
    lock.note(held, replicas)
    return files, replicas


def tidy_up() -> None:
    """Remove the trials and the stopped uwsgi containers of this stack."""
    mine = ["--filter", f"label={stack.PROJECT_LABEL}={stack.project()}"]
    trials = stack.docker("ps", "--all", "--quiet", *mine, "--filter", f"label={stack.ONE_OFF_LABEL}=True").split()
    for one in trials + [one.id for one in stack.containers("uwsgi") if not one.running]:
        quiet(["docker", "rm", "--force", one])


def check(files: Sequence[str], release: str) -> None:
    """Import the new code with its real settings, run Django's checks and say which migrations it brings."""
    said = stack.run_release(files, "check_project.py", "--deploy", release=release, seconds=CHECK_SECONDS)
    for line in said.splitlines():
        print(f"    {line}")


def trial(files: Sequence[str], release: str) -> None:
    """Start the new release as it will run, but without the pool, until it is healthy by itself."""
    told = stack.compose(
        files, "run", "--detach", "--no-deps", "uwsgi", "uwsgi", "--ini", "/etc/uwsgi/uwsgi.ini", release=release
    )
    container = told.split()[-1]
    try:
        wait_healthy([container])
    finally:
        quiet(["docker", "rm", "--force", container])


def switch(files: Sequence[str], release: str, replicas: int) -> None:
    """Start `replicas` containers of a release beside those that serve, and retire these."""
    before = releases.running()
    releases.name(f"{releases.repository()}:{release}", "latest")
    new: list[str] = []
    try:
        with timed(f"start of {replicas}"):
            new = start_beside(files, replicas)
            wait_healthy(new)
    except BaseException:
        for one in new:
            quiet(["docker", "rm", "--force", one])
        if before:
            releases.name(before, "latest")
        raise
    old = [one for one in stack.containers("uwsgi") if one.id not in new]
    with timed(f"retirement of {len(old)}"):
        retire(old)


def start_beside(files: Sequence[str], count: int) -> list[str]:
    """Start `count` more containers of what `latest` is, and return their ids.

    Compose counts a stopped container as one of those wanted and starts it again, with its old code. One that
    a killed deploy was stopping may end at any moment: hence the tidying up, and the second and third look.
    """
    known = {one.id for one in stack.containers("uwsgi")}
    new: list[str] = []
    for _ in range(3):
        tidy_up()
        now = stack.containers("uwsgi")
        total = str(len(now) + count - len(new))
        beside = ["--detach", "--no-build", "--no-deps", "--no-recreate"]
        stack.compose(files, "up", *beside, "--scale", f"uwsgi={total}", "uwsgi")
        new = [one.id for one in stack.containers("uwsgi") if one.id not in known]
        if len(new) >= count:
            return new
    raise Stop("The old containers keep coming and going. Look at: make ps, then try again")


def wait_healthy(ids: Sequence[str]) -> None:
    """Wait until each container is healthy. Raises Stop with the last words of one that will not be."""
    deadline = time.monotonic() + HEALTHY_SECONDS
    while True:
        told = [stack.read(one) for one in json.loads(stack.docker("inspect", *ids))]
        for one in told:
            failed = not one.running or one.restarts > 0 or one.health == "unhealthy"
            if failed or time.monotonic() > deadline:
                raise Stop(
                    f"{stack.last_words(one)}\nThe new release does not become healthy (above). The old one serves on."
                )
        if all(one.health == "healthy" for one in told):
            return
        time.sleep(0.1)


def retire(old: Sequence[Container]) -> None:
    """Stop containers gracefully, one by one (stop_grace_period bounds each), and remove them."""
    for one in old:
        stack.docker("stop", one.id, seconds=120)
        stack.docker("rm", one.id)


@contextmanager
def timed(title: str) -> Iterator[None]:
    """Print how long a step took."""
    began = time.monotonic()
    yield
    print(f"  {title:<36} {time.monotonic() - began:6.1f} s", flush=True)
