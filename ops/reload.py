"""`make reload`: `uwsgi --reload` in every uwsgi container, one after the other."""

from __future__ import annotations

import time

from ops import lock, stack
from ops.console import Stop
from ops.stack import Container

PIDFILE = "/run/uwsgi/uwsgi.pid"
# worker-reload-mercy (33 s, uwsgi/uwsgi.ini) and a start
SECONDS = 75


def reload() -> None:
    """Reload each container and wait until it is healthy again. Raises Stop if one does not come back."""
    with lock.only_one("reload"):
        for one in stack.workers():
            began = time.monotonic()
            stack.docker("exec", one.id, "uwsgi", "--reload", PIDFILE)
            wait_for_restart(one)
            print(f"{one.name} reloaded in {time.monotonic() - began:.1f} s")


def wait_for_restart(before: Container) -> None:
    """Wait until a container has started again since `before` was read, and is healthy."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        now = next((one for one in stack.containers(before.service) if one.id == before.id), None)
        if now is None:
            raise Stop(f"{before.name} is gone. Start the stack again: make up or make up-unix")
        if now.started != before.started and now.health == "healthy":
            return
        time.sleep(0.1)
    raise Stop(f"{before.name} was not healthy within {SECONDS} s of its reload. Its log: docker logs {before.name}")
