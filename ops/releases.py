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
    return f"{stack.settings().project}-uwsgi"


def new_name() -> str:
    """Return a tag for a release that is made now: UTC time, and the git revision where there is one."""
    revision = quiet(["git", "rev-parse", "--short", "HEAD"])
    changed = "-changed" if revision and quiet(["git", "status", "--porcelain"]) else ""
    return time.strftime("%Y%m%d-%H%M%S", time.gmtime()) + (f"-{revision}{changed}" if revision else "")


def known() -> list[Release]:
    """Return the releases that are kept, the newest first."""
    images = stack.docker("images", "--no-trunc", "--format", "{{.Tag}} {{.ID}}", repository()).splitlines()
    # Other tags are `latest`, and `development` of `make dev`.
    found = [Release(*line.split()) for line in images if NAME.match(line)]
    return sorted(found, key=lambda release: release.name, reverse=True)


def running() -> str | None:
    """Return the image that serves, None if none does; of two, the one of the newer container."""
    serving = [container for container in stack.containers("uwsgi") if container.running]
    return max(serving, key=lambda container: container.started).image if serving else None


def previous() -> Release | None:
    """Return the newest release that is older than the one that serves, None if there is none."""
    image, releases = running(), known()
    images = [release.image for release in releases]
    older = releases[images.index(image) + 1 :] if image in images else releases
    return next((release for release in older if release.image != image), None)


def name(image: str, name: str) -> None:
    """Give an image a tag of the uwsgi repository."""
    stack.docker("tag", image, f"{repository()}:{name}")


def forget(release: str) -> None:
    """Remove a release; its image stays while a container runs it."""
    # --force: the container of the one-shot service `release`, long ended, would hold it for ever.
    quiet(["docker", "image", "rm", "--force", f"{repository()}:{release}"])


def forget_all() -> None:
    """Remove every release, all other images of `uwsgi`, and unused networks and volumes of another transport."""
    for tag in ("latest", "development", *(release.name for release in known())):
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
    if image and image not in [release.image for release in known()]:
        name(image, new_name())
    for release in known()[KEPT:]:
        if release.image != image:
            forget(release.name)


def show() -> None:
    """Print the releases, the newest first, and mark the one that serves."""
    image = running()
    for release in known():
        mark = "*" if release.image == image else " "
        print(f"{mark} {release.name}  {release.image.removeprefix('sha256:')[:12]}")
    if image is None:
        print("Nothing is running. Start the stack: make up (TCP) or make up-unix")
