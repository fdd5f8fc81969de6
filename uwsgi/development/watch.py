#!/opt/watch/bin/python
"""The first process of `uwsgi` under `make dev`: runs uWSGI, and restarts it when a Python file is saved.

uWSGI's own py-autoreload is reported broken in containers (unbit/uwsgi#2665). Tried here, two of five saves took
effect after 2 s and three not within 30 s. With this program, `make attach` also stays attached.
"""

import os
import signal
import subprocess
import sys
import time
from types import FrameType

from watchfiles import PythonFilter, watch

SOURCE = "/app"
UWSGI = [
    *("uwsgi", "--ini", "/etc/uwsgi/uwsgi.ini", "--ini", "/etc/uwsgi/uwsgi.ini:pool"),
    *("--ini", "/etc/uwsgi/development.ini"),
]
# How often to look for processes that exited on their own (make reload, a new uwsgi-socket) or were told to
LOOK_EVERY_MS = 500
STOP_SECONDS = 1.0
# Processes told to stop, each with its deadline
leaving: dict[subprocess.Popen[bytes], float] = {}


def start() -> subprocess.Popen[bytes]:
    """Start uWSGI in a separate session, so that all its processes can be killed at once."""
    return subprocess.Popen(UWSGI, start_new_session=True)


def dismiss(server: subprocess.Popen[bytes]) -> None:
    """Ask uWSGI to finish its requests and exit. The next one can start at once: both accept from the same queue."""
    server.send_signal(signal.SIGTERM)
    leaving[server] = time.monotonic() + STOP_SECONDS


def see_off() -> None:
    """Kill what was told to stop and is still running, such as a worker in the debugger."""
    for server, until in list(leaving.items()):
        if server.poll() is None and time.monotonic() > until:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
        if server.poll() is not None:
            del leaving[server]


def leave(_number: int, _frame: FrameType | None) -> None:
    """Handle SIGTERM from `docker stop`."""
    raise KeyboardInterrupt


def main() -> None:
    """Run until told to stop."""
    signal.signal(signal.SIGTERM, leave)
    server = start()
    try:
        for changes in watch(
            SOURCE, watch_filter=PythonFilter(), rust_timeout=LOOK_EVERY_MS, yield_on_timeout=True, step=100
        ):
            if changes:
                print("changed:", *sorted({path for _, path in changes}), file=sys.stderr, flush=True)
                dismiss(server)
            if changes or server.poll() is not None:
                server = start()
            see_off()
    except KeyboardInterrupt:
        dismiss(server)
        while leaving:
            time.sleep(0.1)
            see_off()


if __name__ == "__main__":
    main()
