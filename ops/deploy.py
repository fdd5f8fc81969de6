"""`make up`, `make deploy`, `make rollback`, `make scale`, `make reload`: changes that lose no request.

All go one way. Everything that can be wrong is found before anything is replaced: images are built under a tag of
their own, each program reads in them what it will read, migrations run while the old release serves, and the new one
is tried in a container that is not attached to the pool. New containers of uwsgi and nginx start next to the old ones,
which go only when the new ones are healthy; after a change of transport, those of uwsgi-socket as well. If a verb is
killed at any step, the same command run again ends what it began.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ops import backup, front_page, logs, preflight, proof, releases, stack, state
from ops.change import change, claim, remove, timed
from ops.console import Stop, quiet
from ops.launch import WAIT_SECONDS, launch
from ops.stack import Container
from ops.state import State
from ops.wanted import (
    OF_A_TRANSPORT,
    UNKNOWN,
    Wanted,
    digest,
    image_of,
    is_over,
    look,
    not_taken_in,
    pool_is_moved,
    takes_port,
)

# What migrations may take
RELEASE_SECONDS = 1800
# What a reload may take apart from the stop, which stop_grace_period bounds
RELOAD_SECONDS = 35
# Of this machine's memory, what uwsgi containers may be promised together.
MEMORY_SHARE = 0.8
PIDFILE = "/run/uwsgi/uwsgi.pid"
# Healthy only once a request goes through it to Django: it starts last.
LAST = ("nginx",)
# Their new containers start in this order next to the old ones, which end in the opposite one.
NEXT_TO_THE_OLD = tuple(reversed(OF_A_TRANSPORT))


def deploy() -> None:
    """Deploy the code in app/. Raises Stop, while the old release keeps serving, if anything is wrong with it."""
    with change("deploy") as before:
        files = production_files(before)
        refuse_two_nginx()
        if not stack.containers() and state.read() is None:
            raise Stop("Nothing has been started here yet. Type: make up")
        now, _ = bring(files, before, everything=False)
        backup.started(files)
        print(f"\n{now.release} serves in {counted(now.replicas)}. Back: make rollback")
    front_page.show()


def bring(files: Sequence[str], before: State, *, everything: bool) -> tuple[State, dict[str, Any]]:
    """Bring the stack to what the files and the code ask for; without `everything`, only the project.

    Returns the new state and the configuration. Raises Stop, with what ran before left as it was.
    """
    config = stack.config(files)
    preflight.check(config)
    if not everything and (changed := not_taken_in(config, before)):
        # Otherwise nginx and uWSGI could have different limits, hosts and timeouts.
        raise Stop(
            f"Changed since the last `make up`, in .env or in a file that is mounted: {', '.join(changed)}. "
            "To deploy the project and take this in, type: make up"
        )
    releases.remember()
    containers, written = stack.containers(), state.read()
    try:
        with timed("build"):
            stack.build(files, *([] if everything else ["uwsgi"]), release=releases.NEXT)
        return applied(look(files, config, everything), before, containers, everything=everything), config
    except BaseException:
        if not containers:
            # Nothing ran before, so nothing half-started may stay; volumes do.
            quiet(stack.compose_command(files, "down", "--remove-orphans"), seconds=WAIT_SECONDS)
            if written:
                # After `make down`: transport and number of containers
                state.write(written)
            else:
                state.forget()
        raise
    finally:
        names = {image_of(config, name) for name, settings in config["services"].items() if "build" in settings}
        quiet(["docker", "image", "rm", "--force", *sorted(map(releases.next_of, names))])


def applied(wanted: Wanted, before: State, containers: Sequence[Container], *, everything: bool) -> State:
    """Prove what is new, and let it take over from what is old. Returns the new state."""
    running = [container for container in containers if container.running]
    different = wanted.different(before, running) if everything else {"uwsgi"}
    project = "uwsgi" in different
    prove(wanted, different & set(wanted.others()), project=project)
    claim()
    now = replace(before, files=state.relative(wanted.files), transport=wanted.transport(), folder=State.folder)
    if project or (different & set(LAST) and runs(*LAST, running)):
        started, old = take_over(wanted, before, running, different, everything=everything)
        digests = {**now.digests, **{service: wanted.digests[service] for service in started}}
        now = replace(now, digests=digests)
        if project:
            release = releases.keep(wanted.ids[wanted.images["uwsgi"]], again=not everything)
            images = releases.known() if before.left else {}
            # One that is deployed again is no longer one to avoid.
            left = tuple(name for name in before.left if images.get(name) != images.get(release))
            now = replace(now, release=release, left=left)
        # From here on the next verb goes on with what is new, should this one be killed.
        state.write(now)
        retire(old)
    if everything:
        bring_others(wanted, now)
        now = replace(now, digests=wanted.digests)
    else:
        start(wanted, [service for service in LAST if not runs(service, running)])
    state.write(now)
    releases.remember()
    return now


def take_over(
    wanted: Wanted, before: State, running: Sequence[Container], different: set[str], *, everything: bool
) -> tuple[list[str], list[Container]]:
    """Migrate, try a new release if one serves, and start what is new next to what is old.

    Returns the services of which new containers run, and the old containers, which can be retired.
    """
    blocked = [service for service in wanted.config["services"] if takes_port(wanted.config, service, running)]
    moved = everything and bool(blocked or pool_is_moved(wanted.config, running))
    later = (*LAST, *blocked, *(name for name in wanted.others() if moved and name.endswith("-socket")))
    missing = [service for service in wanted.others() if service not in later and not runs(service, running)]
    ours = any(container.service == "uwsgi-socket" and is_over(container, wanted.transport()) for container in running)
    kept = {"uwsgi-socket"} if ours and before.transport == wanted.transport() else set()
    replaced = [
        name for name in NEXT_TO_THE_OLD if name in different - kept and (name == "uwsgi" or runs(name, running))
    ]
    with undone_on_failure({image_of(wanted.config, service) for service in (*missing, *replaced)}):
        start(wanted, missing)
        if "uwsgi" in different:
            with timed("release (migrations, static files)"):
                run_release(wanted.files)
            if runs("uwsgi", running):
                with timed("trial, not attached to the pool"):
                    proof.trial(wanted.files, releases.NEXT)
        if not moved:
            old: list[Container] = []
            for service in replaced:
                name_latest(wanted, service)
                old = start_new(wanted.files, service, before.replicas if service == "uwsgi" else 1) + old
            return [*missing, *replaced], old
    forget(wanted.digests, before)
    in_place(wanted, before.replicas)
    return wanted.services(), []


def forget(services: Iterable[str], now: State) -> None:
    """Write down that nothing is known of these services while they are replaced, should this be killed.

    Otherwise a change that is taken back after the kill counts as no difference, and what it has started stays.
    Of services without a digest nothing is known anyway: there Compose decides.
    """
    known = [service for service in services if service in now.digests]
    state.write(replace(now, digests={**now.digests, **dict.fromkeys(known, UNKNOWN)}))


def run_release(files: Sequence[str]) -> None:
    """Run the one-shot service `release` of the new image, and print what it has copied."""
    output = stack.run_once(
        files, "release", release=releases.NEXT, seconds=RELEASE_SECONDS, label=stack.MIGRATION_LABEL
    )
    for line in output.splitlines():
        if line.startswith("release: ") and "database" in line:
            print(f"    {line.removeprefix('release: ')}")


def prove(wanted: Wanted, others: set[str], *, project: bool) -> None:
    """Have each program that will be replaced read, in its new image, what it will read. Raises Stop if one refuses."""
    if project:
        with timed("check"):
            proof.project(wanted.files, releases.NEXT)
    for service in sorted(others):
        with timed(f"check of {service}"):
            if service == "nginx":
                proof.nginx(wanted.files, releases.NEXT)
            elif service.endswith("-socket"):
                proof.socket_holder(wanted.config, service, wanted.images[service])


def runs(service: str, running: Sequence[Container]) -> bool:
    """Return whether a container of this service runs."""
    return any(container.service == service for container in running)


def in_place(wanted: Wanted, replicas: int) -> None:
    """Have Compose replace everything at once, which visitors notice. All of it is proven."""
    print("    this change moves the port or the pool: for a moment the site does not answer")
    for service in wanted.services():
        name_latest(wanted, service)
    with timed("start of all services"):
        launch(wanted.files, "--remove-orphans", "--scale", f"uwsgi={replicas}")


def start(wanted: Wanted, services: Sequence[str], *options: str) -> None:
    """Have Compose start these services, and replace what of them is not what the files ask for."""
    if services:
        for service in services:
            name_latest(wanted, service)
        with timed(f"start of {', '.join(services)}"):
            launch(wanted.files, "--no-deps", *options, *services)


def name_latest(wanted: Wanted, service: str) -> None:
    """Call the image that was built for a service what Compose calls it."""
    if (image := wanted.images[service]) != (name := image_of(wanted.config, service)):
        stack.docker("tag", image, name)


def bring_others(wanted: Wanted, now: State) -> None:
    """Have Compose bring the services other than uwsgi to what the files ask for; only those that differ."""
    containers = stack.containers()
    different = wanted.different(now, [container for container in containers if container.running]) - {"uwsgi"}
    contents = {service for service in different if wanted.has_new_contents(service, now)}
    forget(different, now)
    start(wanted, sorted(different & contents), "--force-recreate")
    start(wanted, sorted(different - contents))
    if not any(container.service == "release" for container in containers):
        # Not for us: without it `docker compose start` says that the service has no container.
        stack.compose(wanted.files, "up", "--no-start", "--no-build", "--no-deps", "release")
    if {container.service for container in containers} - set(wanted.config["services"]):
        launch(wanted.files, "--no-deps", "--remove-orphans", *LAST)
    if different:
        # A new uwsgi-socket makes every uwsgi exit and come back.
        seconds = reload_seconds(stack.containers("uwsgi")) + stack.late()
        stack.wait_healthy(
            lambda: stack.containers("uwsgi"),
            lambda _: False,
            seconds=seconds,
            message=f"uwsgi is not healthy {seconds:.0f} s after the other services were started (above).",
        )


def production_files(before: State) -> list[str]:
    """Return the files of the stack, once it is over one transport. Raises Stop if it is that of `make dev`."""
    if stack.includes(before.files, stack.DEVELOPMENT):
        raise Stop("This is the stack of `make dev`, which has no releases. For production: make up")
    retire_other_transport(before.transport)
    return state.current_files()


def retire_other_transport(transport: str) -> None:
    """Retire what a killed change of transport has left. Raises Stop if what is over this one could not serve alone.

    Once uwsgi is replaced, an nginx of the other transport would pass requests to a socket that no one reads.
    """
    running = [container for container in stack.containers(*OF_A_TRANSPORT) if container.running]
    left = [container for container in running if not is_over(container, transport)]
    if not left:
        return
    serving = {container.service for container in running if container not in left and container.health != "unhealthy"}
    if serving < set(OF_A_TRANSPORT):
        other = stack.transport_of(left[0].files)
        raise Stop(
            f"Containers over {other} run, and the last command that ended left the stack over {transport}. Nothing "
            "was changed. Choose the one that is to serve: make up-tcp or make up-unix"
        )
    retire(sorted(left, key=lambda container: OF_A_TRANSPORT.index(container.service)))


def refuse_two_nginx() -> None:
    """Raise Stop if two containers of nginx run: a change was cut off, and they may differ."""
    if sum(container.running for container in stack.containers("nginx")) > 1:
        raise Stop("Two containers of nginx run, since a change was cut off. To end it, type: make up")


def counted(replicas: int) -> str:
    """Return a number of containers in words."""
    return f"{replicas} container{'' if replicas == 1 else 's'}"


def rollback() -> None:
    """Return to the previous release, by its image, whether one serves or not. Raises Stop if there is none."""
    with change("rollback") as before:
        files = production_files(before)
        previous = releases.to_return_to(before)
        if previous is None and not releases.known():
            raise Stop("There is no release yet. The first is made by: make up")
        if previous is None:
            raise Stop("There is no release before the running one. To see which are kept: make releases")
        config = stack.config(files)
        others = [name for name in config["services"] if name not in ("uwsgi", "release", *LAST)]
        running = [container for container in stack.containers() if container.running]
        start_again(files, [service for service in others if not runs(service, running)])
        with timed("static files"):
            stack.run_once(files, "release", "release.py", "--publish-only", release=previous)
        with undone_on_failure([f"{releases.repository()}:latest"]):
            releases.name(f"{releases.repository()}:{previous}", "latest")
            old = start_new(files, "uwsgi", before.replicas)
            digests = {**before.digests, "uwsgi": digest(config, "uwsgi")} if before.digests else {}
            now = replace(before, files=tuple(files), release=previous, digests=digests)
            state.write(replace(now, left=(*before.left, before.release)))
        retire(old)
        start_again(files, [service for service in LAST if not runs(service, running)])
        print(f"\n{previous} serves again. Forward: make deploy")
    front_page.show()


def start_again(files: Sequence[str], services: Sequence[str]) -> None:
    """Start services that do not run, as they were."""
    if services:
        with timed(f"start of {', '.join(services)}"):
            launch(files, "--no-deps", *services)


def scale(wanted: str) -> None:
    """Run as many uwsgi containers as wanted. Raises Stop for a number that the memory does not allow."""
    with change(f"scale N={wanted}") as before:
        files = production_files(before)
        refuse_two_nginx()
        # First, because before the first start there is no project.env, which Compose would name.
        image, workers = releases.running(), stack.workers()
        config = stack.config(files)
        limit = int(config["services"]["uwsgi"]["mem_limit"])
        total = int(stack.docker("info", "--format", "{{.MemTotal}}"))
        most = max(1, int(total * MEMORY_SHARE / limit))
        if not wanted.isdigit() or not 1 <= int(wanted) <= most:
            raise Stop(
                f"N is {wanted!r}, not a number from 1 to {most}: each container may take {limit >> 20} MB "
                f"(mem_limit), and this machine has {total >> 20} MB. Type: make scale N=2"
            )
        # A verb that was killed may have left others, which are not proven.
        serving = [container for container in workers if container.image == image]
        with timed(f"{len(workers)} to {wanted}"):
            if int(wanted) > len(serving):
                refuse_other_settings(config, before)
                add(files, int(wanted) - len(serving))
            leaving = [container for container in workers if container not in serving[: int(wanted)]]
        retire(leaving)
        state.write(replace(before, files=tuple(files), replicas=int(wanted)))


def refuse_other_settings(config: dict[str, Any], before: State) -> None:
    """Raise Stop if new containers of uwsgi would have other settings than those that serve."""
    if before.digests.get("uwsgi", "") not in ("", digest(config, "uwsgi")):
        raise Stop(
            "The settings of uwsgi have changed since the last `make up` or `make deploy`, so that new containers "
            "would differ from those that serve. To take them in, type: make up"
        )


def add(files: Sequence[str], count: int) -> None:
    """Start more containers of the release that serves. Raises Stop, and removes them, if they do not get healthy."""
    serving = releases.running()
    with undone_on_failure([]):
        if serving:
            # Not what was built since and is not proven, as by `make update`.
            releases.name(serving, "latest")
        stack.wait_for_new(start_more(files, "uwsgi", count))


def reload() -> None:
    """Reload each uwsgi container and wait until it is healthy again. Raises Stop if one does not come back."""
    with change("reload"):
        for container in stack.workers():
            began = time.monotonic()
            stack.docker("exec", container.id, "uwsgi", "--reload", PIDFILE)
            wait_for_restart(container)
            print(f"{container.name} reloaded in {time.monotonic() - began:.1f} s")


def reload_seconds(containers: Sequence[Container]) -> int:
    """Return what it may take until these containers have ended and are healthy again."""
    return max((container.grace_seconds for container in containers), default=0) + RELOAD_SECONDS


def wait_for_restart(before: Container) -> None:
    """Wait until a container has started again since `before` was read, and is healthy. Raises Stop if it does not."""
    seconds = reload_seconds([before]) + stack.late()
    stack.wait_healthy(
        lambda: stack.present([before.id]),
        lambda _: False,  # it ends and comes back, which looks like a failure on the way
        seconds=seconds,
        message=f"{before.name} was not healthy within {seconds:.0f} s of its reload (above).",
        ready=lambda found: stack.all_healthy(found) and found[0].started != before.started,
    )


@contextmanager
def undone_on_failure(names: Iterable[str]) -> Iterator[None]:
    """Remove the containers that are new, and give these names back to their images, if what follows fails."""
    known = {container.id for container in stack.containers()}
    before = stack.images(names)
    try:
        yield
    except BaseException:
        take_back([container for container in stack.containers() if container.id not in known])
        for name, image in before.items():
            stack.docker("tag", image, name)
        raise


def take_back(new: Sequence[Container]) -> None:
    """Stop gracefully and remove what a verb has started: it may serve already, though the verb failed or was cut off.

    nginx first, which feeds the others.
    """
    running = [container for container in new if container.running and container.service in OF_A_TRANSPORT]
    if running:
        print("  taking back what was started", flush=True)
    for container in sorted(running, key=lambda one: OF_A_TRANSPORT.index(one.service)):
        quiet(["docker", "stop", container.id], seconds=stack.stop_seconds([container]))
    remove([container.id for container in new])


def start_new(files: Sequence[str], service: str, count: int) -> list[Container]:
    """Start `count` containers of what `latest` is, wait, and return those that served so far: they can go now."""
    with timed(f"start of {service}" if count == 1 else f"start of {count} {service}"):
        new = start_more(files, service, count)
        stack.wait_for_new(new)
    return [container for container in stack.containers(service) if container.id not in new]


def start_more(files: Sequence[str], service: str, count: int) -> list[str]:
    """Start `count` more containers of what `latest` is, and return their ids.

    Compose counts a stopped container as one of those wanted and starts it again, with its old code. One that
    a killed deploy was stopping may end at any moment: hence the removal, and the second and third look.
    """
    known = {container.id for container in stack.containers(service)}
    options = ["--detach", "--no-build", "--no-deps", "--no-recreate"]
    new: list[str] = []
    for _ in range(3):
        stopped = [container for container in stack.containers(service) if not container.running]
        logs.keep(stopped)
        remove([container.id for container in stopped])
        total = len(stack.containers(service)) + count - len(new)
        stack.compose(files, "up", *options, "--scale", f"{service}={total}", service)
        new = [container.id for container in stack.containers(service) if container.id not in known]
        if len(new) >= count:
            return new
    raise Stop("The old containers keep stopping and starting. Look at: make ps, then try again")


def retire(old: Sequence[Container]) -> None:
    """Stop containers gracefully, one by one (stop_grace_period bounds each), and remove them."""
    if not old:
        return
    with timed(f"retirement of {len(old)}"):
        for container in old:
            stack.docker("stop", container.id, seconds=stack.stop_seconds([container]))
            logs.keep([container])
            stack.docker("rm", container.id)
