"""Containers started by Compose, and waited for."""

from __future__ import annotations

import math
import subprocess
import tempfile
from collections.abc import Sequence

from ops import stack
from ops.console import ROOT, Stop
from ops.stack import Container, compose_command

WAIT_SECONDS = 120
# One may fail for a reason that passes.
FAILED_STARTS = 3


def launch(files: Sequence[str], *arguments: str) -> None:
    """Start the containers and wait until all are healthy. Raises Stop with the logs of those that are not."""
    options = ["--detach", "--no-build", "--wait", "--wait-timeout", f"{WAIT_SECONDS + stack.late():.0f}"]
    before = {container.id for container in stack.containers()}
    with tempfile.TemporaryFile("w+") as errors:
        starting = subprocess.Popen(
            compose_command(files, "--progress", "quiet", "up", *options, *arguments), stderr=errors, cwd=ROOT
        )
        try:
            # Compose waits until all are healthy, even for a container that starts, fails and starts again. Those
            # that were there before may: a uwsgi whose uwsgi-socket is being replaced comes back until it is.
            stack.wait_healthy(
                lambda: [container for container in stack.containers() if container.id not in before],
                lambda container: container.restarts >= FAILED_STARTS,
                seconds=math.inf,
                message=f"It failed to start {FAILED_STARTS} times (above).",
                ready=lambda _: starting.poll() is not None,
            )
        finally:
            starting.terminate()
            starting.wait()
        if starting.returncode != 0:
            errors.seek(0)
            wrong = [container for container in stack.containers() if not is_well(container)]
            raise Stop("\n".join([errors.read().strip(), *map(stack.end_of_log, wrong)]))


def is_well(container: Container) -> bool:
    """Return whether a container is as it should be after a start."""
    if container.service == "release":
        return container.exit_code == 0
    return container.running and container.health in ("healthy", "none")
