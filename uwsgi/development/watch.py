#!/opt/watch/bin/python
"""The first process of `uwsgi` under `make dev`: runs uWSGI, and again as soon as a Python file is saved.

uWSGI's own py-autoreload is reported broken in containers (unbit/uwsgi#2665), and a container that Docker restarts
waits longer each time. In here `make attach` also stays attached.
"""

import os
import signal
import subprocess
import sys
from types import FrameType

from watchfiles import PythonFilter, watch

SOURCE = "/app"
UWSGI = [
    *("uwsgi", "--ini", "/etc/uwsgi/uwsgi.ini", "--ini", "/etc/uwsgi/uwsgi.ini:pool"),
    *("--ini", "/etc/uwsgi/development.ini"),
]
# For a uWSGI that has ended by itself (make reload, a new listener) to be started again
LOOK_EVERY_MS = 500
STOP_SECONDS = 1


def start() -> subprocess.Popen[bytes]:
    """Start uWSGI in a session of its own, so that all of it can be ended at once."""
    return subprocess.Popen(UWSGI, start_new_session=True)


def end(server: subprocess.Popen[bytes]) -> None:
    """End uWSGI: what it is at is answered, but what takes longer, as a debugger does, is not waited for."""
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def leave(_number: int, _frame: FrameType | None) -> None:
    """Answer `docker stop`."""
    raise KeyboardInterrupt


def main() -> None:
    """Run until told to stop."""
    signal.signal(signal.SIGTERM, leave)
    server = start()
    try:
        for changes in watch(
            SOURCE, watch_filter=PythonFilter(), rust_timeout=LOOK_EVERY_MS, yield_on_timeout=True, step=200
        ):
            if changes:
                print("changed:", *sorted({path for _, path in changes}), file=sys.stderr, flush=True)
                end(server)
            if server.poll() is not None:
                server = start()
    except KeyboardInterrupt:
        end(server)


if __name__ == "__main__":
    main()
