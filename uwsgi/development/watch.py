#!/opt/watch/bin/python
"""The first process of `uwsgi` under `make dev`: runs uWSGI, and again as soon as a Python file is saved.

uWSGI's own py-autoreload is reported broken in containers (unbit/uwsgi#2665); tried in this place, two of five saves
answered after 2 s and three not within 30 s. In here `make attach` also stays attached.
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
# How often to look at processes that end by themselves (make reload, a new uwsgi-socket) or were told to
LOOK_EVERY_MS = 500
STOP_SECONDS = 1.0
# By process: those told to leave, and until when they may take
leaving: dict[subprocess.Popen[bytes], float] = {}


def start() -> subprocess.Popen[bytes]:
    """Start uWSGI in a session of its own, so that all of it can be ended at once."""
    return subprocess.Popen(UWSGI, start_new_session=True)


def dismiss(server: subprocess.Popen[bytes]) -> None:
    """Have uWSGI answer what it is at and end. The next one need not wait: both take from the uwsgi-socket's queue."""
    server.send_signal(signal.SIGTERM)
    leaving[server] = time.monotonic() + STOP_SECONDS


def see_off() -> None:
    """End what was told to leave and is still there, as a worker in the debugger is."""
    for server, until in list(leaving.items()):
        if server.poll() is None and time.monotonic() > until:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
        if server.poll() is not None:
            del leaving[server]


def leave(_number: int, _frame: FrameType | None) -> None:
    """Answer `docker stop`."""
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
