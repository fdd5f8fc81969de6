"""What the compose files ask for, next to what runs: so that only what differs is replaced."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ops import preflight, releases, stack, state
from ops.stack import Container
from ops.state import State

POOL = "/run/pool"
# What of a service's settings is no part of its containers
NOT_OF_A_CONTAINER = ("build", "depends_on", "pull_policy", "scale")
# Services whose containers belong to a transport, from the outside in
OF_A_TRANSPORT = ("nginx", "uwsgi", "uwsgi-socket")
# The digest of a service whose containers were being replaced: neither settings nor contents are those of any file.
UNKNOWN = "unknown-unknown"


@dataclass(frozen=True)
class Wanted:
    """What the files ask for, with the images that were built for it."""

    files: Sequence[str]
    config: dict[str, Any]
    # Of each service, the image that its containers will have; of those built here, under the tag `next`
    images: dict[str, str]
    ids: dict[str, str]
    # Of each service, a digest of its settings and one of the contents of the files that it mounts
    digests: dict[str, str]

    def services(self) -> list[str]:
        """Return the services that serve: all but the one-shot `release`."""
        return [name for name in self.config["services"] if name != "release"]

    def others(self) -> list[str]:
        """Return the services whose image is not the project's."""
        return [name for name in self.services() if not self.images[name].startswith(f"{releases.repository()}:")]

    def transport(self) -> str:
        """Return the transport of these files."""
        return stack.transport_of(self.files)

    def different(self, before: State, running: Sequence[Container]) -> set[str]:
        """Return the services whose running containers are not what the files, or the files they mount, ask for."""
        found = set()
        for service in self.services():
            mine = [container for container in running if container.service == service]
            image = self.ids.get(self.images[service])
            as_wanted = all(
                container.image == image and container.health != "unhealthy" and is_over(container, self.transport())
                for container in mine
            )
            count = before.replicas if service == "uwsgi" else 1
            if len(mine) != count or not as_wanted or before.digests.get(service) != self.digests[service]:
                found.add(service)
        return found

    def has_new_contents(self, service: str, before: State) -> bool:
        """Return whether a file that this service mounts, of which Compose looks at the name, has new contents."""
        known = before.digests.get(service, self.digests[service])
        return known.partition("-")[2] != self.digests[service].partition("-")[2]


def is_over(container: Container, transport: str) -> bool:
    """Return whether a container belongs to no other transport than this one."""
    return container.service not in OF_A_TRANSPORT or stack.transport_of(container.files) in (transport, "none")


def image_of(config: dict[str, Any], service: str) -> str:
    """Return the image of a service as Compose calls it."""
    return str(config["services"][service].get("image", f"{stack.settings().project}-{service}"))


def look(files: Sequence[str], config: dict[str, Any], everything: bool) -> Wanted:
    """Return what these files ask for, now that its images are built; without `everything`, only the project's."""
    services = config["services"]
    names = {service: image_of(config, service) for service in services}
    built = {service for service in services if "build" in services[service]} if everything else {"uwsgi"}
    new = {releases.next_of(names[service]) for service in built}
    ids = stack.images({*names.values(), *new})
    images = {
        service: following if (following := releases.next_of(name)) in new & ids.keys() else name
        for service, name in names.items()
    }
    return Wanted(files, config, images, ids, {service: digest(config, service) for service in services})


def digest(config: dict[str, Any], service: str) -> str:
    """Return a digest of a service's settings, a dash, and one of the contents of the files that it mounts."""
    settings = config["services"][service]
    named = [(kind, entry["source"]) for kind in ("configs", "secrets") for entry in settings.get(kind, [])]
    files = [config[kind][source].get("file", "") for kind, source in named]
    files += [mount["source"] for mount in settings.get("volumes", []) if mount["type"] == "bind"]
    contents = [path.read_bytes() for path in map(Path, sorted(filter(None, files))) if path.is_file()]
    made_of = {name: value for name, value in settings.items() if name not in NOT_OF_A_CONTAINER}
    return "-".join(
        hashlib.sha256(text).hexdigest()[:16]
        for text in (json.dumps(made_of, sort_keys=True).encode(), b"\0".join(contents))
    )


def not_taken_in(config: dict[str, Any], before: State) -> list[str]:
    """Return what has changed since the last `make up` and is not the project's, of which deploys take in the settings.

    COMPOSE_FILE, and the settings of services, or files that they mount.
    """
    if not before.digests:
        return []
    files = ({*state.wanted_files(before.transport)} ^ {*before.files}) - {stack.DIRECT}
    project = image_of(config, "uwsgi")
    known = {name: before.digests[name] for name in config["services"] if name in before.digests}
    others = {name: old for name, old in known.items() if image_of(config, name) != project}
    changed = [f"settings of {name}" for name, old in others.items() if digest(config, name) != old]
    return [*(["COMPOSE_FILE"] if files else []), *changed]


def pool_is_moved(config: dict[str, Any], running: Sequence[Container]) -> bool:
    """Return whether the pool that new uwsgi containers mount is not the volume that those which serve mount."""
    mounts = {mount["target"]: mount.get("source", "") for mount in config["services"]["uwsgi"].get("volumes", [])}
    pool = config.get("volumes", {}).get(mounts.get(POOL, ""), {}).get("name")
    return any(container.volumes.get(POOL) != pool for container in running if container.service == "uwsgi")


def takes_port(config: dict[str, Any], service: str, running: Sequence[Container]) -> bool:
    """Return whether a service will bind a port that a container of another one has now."""
    return any(
        preflight.overlap(place, held)
        for _, place in preflight.bound(service, config["services"][service])
        for container in running
        if container.service != service
        for held in container.bound
    )
