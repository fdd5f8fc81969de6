#!/usr/bin/python3 -SEs
"""Health check of `uwsgi`: a worker of this container answers a request through Django.

A connection proves nothing: the kernel accepts it even if every worker hangs. Any status below 500 passes: without
/healthz, the 404 also comes from Django.
"""

import os
import socket
import struct
import sys

SOCKET = "/run/uwsgi/health.sock"
SECONDS = 4
REQUEST = {
    "REQUEST_METHOD": "GET",
    "REQUEST_URI": "/healthz",
    "PATH_INFO": "/healthz",
    "QUERY_STRING": "",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "SERVER_NAME": "localhost",
    "SERVER_PORT": "80",
    # The first of the project's own names: with any other, a project without /healthz would log an error about
    # a wrong Host every ten seconds, and mail it to ADMINS.
    "HTTP_HOST": os.environ.get("DJANGO_ALLOWED_HOSTS", "localhost").split(",")[0].strip().lstrip("."),
    "REMOTE_ADDR": "127.0.0.1",
}


def packet(variables: dict[str, str]) -> bytes:
    """Return a request in the uwsgi protocol: a head of 4 bytes, then keys and values with their lengths."""
    body = b""
    for text in (text for pair in variables.items() for text in pair):
        body += struct.pack("<H", len(text)) + text.encode()
    return struct.pack("<BHB", 0, len(body), 0) + body


def status() -> int:
    """Return the HTTP status of /healthz. Raises OSError if no worker answers within SECONDS."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(SECONDS)
        connection.connect(SOCKET)
        connection.sendall(packet(REQUEST))
        head = connection.recv(64)
    if not head.startswith(b"HTTP/1."):
        raise OSError("the worker closed the connection without an answer")
    return int(head.split()[1])


if __name__ == "__main__":
    try:
        answer = status()
    except OSError as problem:
        sys.exit(f"no answer from this container's workers: {problem}")
    if answer >= 500:
        sys.exit(f"/healthz answers {answer}")
    print(f"/healthz answers {answer}")
