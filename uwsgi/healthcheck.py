#!/usr/bin/python3 -SEs
"""Health check of `uwsgi`: a worker of this container answers a request through Django.

A connection proves nothing: the kernel accepts it even if every worker hangs. stack_application.py answers for a
project that has no /healthz. With --look, print what the worker knows of the project instead (stack_look.py).
"""

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
    "HTTP_HOST": "localhost",
    "REMOTE_ADDR": "127.0.0.1",
    # stack_application.py
    "HEALTH_CHECK": "1",
}


def packet(variables: dict[str, str]) -> bytes:
    """Return a request in the uwsgi protocol: a head of 4 bytes, then keys and values with their lengths."""
    body = b""
    for text in (text for pair in variables.items() for text in pair):
        body += struct.pack("<H", len(text)) + text.encode()
    return struct.pack("<BHB", 0, len(body), 0) + body


def answer(variables: dict[str, str]) -> tuple[int, str]:
    """Return status and body of a worker's answer. Raises OSError if none answers within SECONDS."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(SECONDS)
        connection.connect(SOCKET)
        connection.sendall(packet(variables))
        received = b""
        while chunk := connection.recv(65_536):
            received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1."):
        raise OSError("the worker closed the connection without an answer")
    return int(head.split()[1]), body.decode()


if __name__ == "__main__":
    look = sys.argv[1:] == ["--look"]
    try:
        code, text = answer({**REQUEST, "HEALTH_CHECK": "look"} if look else REQUEST)
    except OSError as problem:
        sys.exit(f"no answer from this container's workers: {problem}")
    if code >= 500:
        sys.exit(f"/healthz answers {code}")
    print(text if look else f"/healthz answers {code}")
