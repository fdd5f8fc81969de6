"""Releases are images: each version of the project that served, under a tag that sorts by time."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from ops import stack
from ops.console import quiet

KEPT = 3
NAME = re.compile(r"\d{8}-\d{6}")


@dataclass(frozen=True)
class Release:
    """One release: its tag and the id of its image."""

    name: str
    image: str


def repository() -> str:
    """Return the name of this stack's uwsgi image."""
    return f"{stack.project()}-uwsgi"


def new_name() -> str:
    """Return a tag for a release that is made now: UTC time, and the git revision where there is one."""
    revision = quiet(["git", "rev-parse", "--short", "HEAD"])
    changed = "-changed" if revision and quiet(["git", "status", "--porcelain"]) else ""
    return time.strftime("%Y%m%d-%H%M%S", time.gmtime()) + (f"-{revision}{changed}" if revision else "")


def known() -> list[Release]:
    """Return the releases that are kept, the newest first."""
    told = stack.docker("images", "--no-trunc", "--format", "{{.Tag}} {{.ID}}", repository())
    found = [Release(*line.split()) for line in told.splitlines()]
    # Others are `latest`, and `development` of `make dev`.
    return sorted((one for one in found if NAME.match(one.name)), key=lambda one: one.name, reverse=True)


def running() -> str | None:
    """Return the image that serves, None if none does; of two, the one of the newer container."""
    serving = sorted((one for one in stack.containers("uwsgi") if one.running), key=lambda one: one.started)
    return serving[-1].image if serving else None


def name(image: str, name: str) -> None:
    """Give an image a tag of the uwsgi repository."""
    stack.docker("tag", image, f"{repository()}:{name}")


def forget(release: str) -> None:
    """Remove a release; its image stays while a container runs it."""
    # --force: the container of the one-shot service `release`, long ended, would hold it for good.
    quiet(["docker", "image", "rm", "--force", f"{repository()}:{release}"])


def forget_all() -> None:
    """Remove every release, the image of `make dev`, and what the transport left behind that is not in use now."""
    for tag in ("development", *(one.name for one in known())):
        forget(tag)
    mine = ["--quiet", "--filter", f"label={stack.PROJECT_LABEL}={stack.project()}"]
    for kind in ("network", "volume"):
        for one_id in stack.docker(kind, "ls", *mine).split():
            quiet(["docker", kind, "rm", one_id])


def remember() -> None:
    """Make sure that what serves is a release, and let go of all but the last few."""
    image, releases = running(), known()
    if image and image not in [one.image for one in releases]:
        name(image, new_name())
        releases = known()
    for one in releases[KEPT:]:
        if one.image != image:
            forget(one.name)


def show() -> None:
    """Print the releases, the newest first, and mark the one that serves."""
    image = running()
    for one in known():
        print(f"{'*' if one.image == image else ' '} {one.name}  {one.image.removeprefix('sha256:')[:12]}")
    if image is None:
        print("Nothing is running. Start the stack: make up (TCP) or make up-unix")
