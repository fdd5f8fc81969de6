"""Releases are images: each version of the project that served, under a tag that sorts by time."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from ops import stack, state
from ops.console import quiet
from ops.stack import Container
from ops.state import State

KEPT = 3
# What is built and not yet proven
NEXT = "next"
NAME = re.compile(r"\d{8}-\d{6}")


def repository() -> str:
    """Return the name of this stack's uwsgi image."""
    return f"{stack.settings().project}-uwsgi"


def new_name() -> str:
    """Return a tag for a release that is made now: UTC time, and the project's git revision where there is one."""
    # PROJECT_DIR may be a repository of its own, or none.
    git = ["git", "-C", str(stack.settings().folder())]
    revision = quiet([*git, "rev-parse", "--short", "HEAD"])
    changed = "-changed" if revision and quiet([*git, "status", "--porcelain"]) else ""
    return time.strftime("%Y%m%d-%H%M%S", time.gmtime()) + (f"-{revision}{changed}" if revision else "")


def known() -> dict[str, str]:
    """Return name and image of the releases that are kept, the newest first."""
    tags = stack.docker("images", "--no-trunc", "--format", "{{.Tag}} {{.ID}}", repository()).splitlines()
    # Other tags are `latest`, and `development` of `make dev`.
    return dict(line.split() for line in sorted(tags, reverse=True) if NAME.match(line))


def running() -> str | None:
    """Return the image that serves, None if none does.

    Of two, as a verb that was killed may leave them, the one of the release that was written down; it is proven.
    """
    serving = [container for container in stack.containers("uwsgi") if container.running and is_release(container)]
    last = state.read()
    proven = known().get(last.release) if last else None
    if proven in {container.image for container in serving}:
        return proven
    return max(serving, key=lambda container: container.started).image if serving else None


def is_release(container: Container) -> bool:
    """Return whether a container is of a release, not of `make dev`."""
    return not stack.includes(container.files, stack.DEVELOPMENT)


def to_return_to(before: State) -> str | None:
    """Return the release that `make rollback` starts, None if there is none.

    If a deploy was killed once its containers ran, those are what to go back from.
    """
    images = known()
    unfinished = any(
        container.running and is_release(container) and container.image not in images.values()
        for container in stack.containers("uwsgi")
    )
    return before.release if unfinished and before.release in images else previous(before.release, before.left)


def previous(last: str = "", left: Sequence[str] = ()) -> str | None:
    """Return the newest release that is older than the one that serves, None if there is none.

    If none serves, it is older than the last to be started. Not one that a rollback has left.
    """
    image, releases = running(), known()
    image = image or releases.get(last)
    serving = max((name for name in releases if releases[name] == image), default=last or None)
    not_these = {image, *(releases.get(name) for name in left)}
    older = (name for name in releases if releases[name] not in not_these and (serving is None or name < serving))
    return next(older, None)


def name(image: str, tag: str) -> None:
    """Give an image a tag of the uwsgi repository."""
    stack.docker("tag", image, f"{repository()}:{tag}")


def next_of(image: str) -> str:
    """Return the name that an image has while it is built and not yet proven (RELEASE in compose.yaml)."""
    return f"{image.removesuffix(':latest')}:{NEXT}"


def keep(image: str, *, again: bool) -> str:
    """Make an image a release, which `again` it may be, and return its name."""
    names = [release for release, kept in known().items() if kept == image]
    if again or not names:
        names = [new_name()]
        name(image, names[0])
    return names[0]


def forget(release: str) -> None:
    """Remove a release; its image stays while a container runs it."""
    # --force: the container of the one-shot service `release`, long ended, would hold it for ever.
    quiet(["docker", "image", "rm", "--force", f"{repository()}:{release}"])


def forget_all() -> None:
    """Remove every release, all other images of `uwsgi`, and unused networks and volumes of another transport."""
    for tag in ("latest", "development", NEXT, *known()):
        forget(tag)
    for kind in ("network", "volume"):
        mine = stack.docker(
            kind, "ls", "--quiet", "--filter", f"label={stack.PROJECT_LABEL}={stack.settings().project}"
        )
        for identifier in mine.split():
            quiet(["docker", kind, "rm", identifier])


def remember() -> None:
    """Make sure that what serves is a release, and forget all but the last few."""
    image = running()
    if image and image not in known().values():
        name(image, new_name())
    images = known()
    # One image has several names if it was deployed several times.
    newest = [*dict.fromkeys(images.values())][:KEPT]
    for release, kept in images.items():
        if kept not in (image, *newest):
            forget(release)


def show() -> None:
    """Print the releases, the newest first, and mark the one that serves."""
    serving, last, images = running(), state.read(), known()
    # Of several names of the image that serves, the one that was written down
    names = [release for release, image in images.items() if image == serving]
    live = last.release if last and last.release in names else next(iter(names), None)
    for release, image in images.items():
        print(f"{'*' if release == live else ' '} {release}  {image.removeprefix('sha256:')[:12]}")
    if serving is None:
        print("Nothing is running. Start the stack: make up")
