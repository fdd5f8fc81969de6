"""Django's handler called in a loop, without any server: the limit of what a server can reach.

Usage: in_process.py PATH SECONDS PROCESSES BODY_BYTES PAUSE; prints requests, seconds and processor seconds as JSON.
With a pause (seconds) before each request it finds the processor's caches as a server does that was waiting.
"""

import gc
import io
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from bench.wsgi import application


def request(path: str, body: bytes) -> dict[str, Any]:
    """Return the environ that uWSGI makes of nginx's variables."""
    return {
        "REQUEST_METHOD": "POST" if body else "GET",
        "REQUEST_URI": path,
        "PATH_INFO": path,
        "SCRIPT_NAME": "",
        "QUERY_STRING": "",
        "CONTENT_TYPE": "application/octet-stream" if body else "",
        "CONTENT_LENGTH": str(len(body)) if body else "",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "8080",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "40000",
        "HTTP_HOST": "localhost:8080",
        "HTTP_USER_AGENT": "h2load",
        "HTTP_X_REQUEST_ID": "0123456789abcdef0123456789abcdef",
        "HTTP_X_FORWARDED_FOR": "127.0.0.1",
        "HTTP_X_FORWARDED_PROTO": "http",
        "TRANSPORT": "none",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }


def answer(path: str, body: bytes) -> None:
    """Have one request answered. Raises RuntimeError if it is not a 200."""
    statuses: list[str] = []

    def start_response(status: str, headers: list[tuple[str, str]], *_: object) -> Callable[[bytes], None]:
        statuses.append(status)
        return lambda data: None

    response = application(request(path, body) | {"wsgi.input": io.BytesIO(body)}, start_response)
    for _ in response:
        pass
    response.close()
    if statuses != ["200 OK"]:
        raise RuntimeError(f"{path}: {statuses}")


def loop(path: str, seconds: float, body: bytes, pause: float) -> dict[str, float]:
    """Answer requests for some seconds and return what they took."""
    for _ in range(50):
        answer(path, body)
    gc.collect()
    gc.freeze()
    count, cpu, began = 0, time.process_time(), time.monotonic()
    asleep = 0.0
    while time.monotonic() - began < seconds:
        for _ in range(10):
            if pause:
                lain_down = time.process_time()
                time.sleep(pause)
                asleep += time.process_time() - lain_down
            answer(path, body)
        count += 10
    return {"requests": count, "seconds": time.monotonic() - began, "cpu": time.process_time() - cpu - asleep}


def main() -> None:
    """Run the loop in several processes at once and print one line of JSON for each."""
    path, seconds, processes, size, pause = (
        sys.argv[1],
        float(sys.argv[2]),
        *map(int, sys.argv[3:5]),
        float(sys.argv[5]),
    )
    children = []
    for _ in range(processes):
        child = os.fork()
        if child == 0:
            # In one piece: the others write, too.
            os.write(1, json.dumps(loop(path, seconds, bytes(size), pause)).encode() + b"\n")
            os._exit(0)
        children.append(child)
    if any(os.waitpid(child, 0)[1] for child in children):
        sys.exit("one of the processes failed (above)")


if __name__ == "__main__":
    main()
