"""Large answers to slow clients end whole and occupy no worker; private files are sent by nginx, streams at once."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

import pytest
import requests

from tests.support.stack import ROOT, Stack

MEBIBYTE = 1 << 20
FILE_MEGABYTES = 100
# Longer than a request may take in these tests (tests/overrides/test.yaml)
SLOW_SECONDS = 8


@contextmanager
def reader(stack: Stack, path: str) -> Iterator[socket.socket]:
    """Open a connection of a client that has asked for this path, with little room for an answer."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 200_000)
        connection.settimeout(20)
        connection.connect(stack.address())
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        yield connection


def length_of(connection: socket.socket) -> int:
    """Return how many bytes still come until the connection is closed."""
    total = 0
    while chunk := connection.recv(MEBIBYTE):
        total += len(chunk)
    return total


@pytest.mark.slow_on_tcp
def test_a_large_download_to_a_slow_client_ends_whole(stack: Stack) -> None:
    path = f"/file/{FILE_MEGABYTES}"
    with reader(stack, path) as first, reader(stack, path) as second:
        clients, until = {first: 0, second: 0}, time.monotonic() + SLOW_SECONDS
        while time.monotonic() < until:
            for client in clients:
                # Not slower: on the way are buffers of some megabytes, and send_timeout is 5 s in these tests.
                clients[client] += len(client.recv(100_000))
            time.sleep(0.05)
        # Both workers are free although both clients still read.
        assert stack.get("/version", timeout=2).status_code == 200
        assert max(clients.values()) < FILE_MEGABYTES * MEBIBYTE
        for client, length in clients.items():
            assert length + length_of(client) > FILE_MEGABYTES * MEBIBYTE


@pytest.mark.slow_on_tcp
def test_a_view_that_hangs_after_a_large_body_is_cut_off(stack: Stack) -> None:
    """UWSGI's own count would begin again with each part of the body that it reads."""
    answer = stack.post("/sleep/20000", b"x" * (5 * MEBIBYTE))
    assert answer.status_code == 502
    assert answer.elapsed.total_seconds() < 10


def test_events_arrive_one_by_one(stack: Stack) -> None:
    with requests.get(stack.url("/events/5?unbuffered"), stream=True, timeout=10) as answer:
        arrived = [time.monotonic() for line in answer.iter_lines(chunk_size=1) if line]
    assert len(arrived) == 5
    assert arrived[-1] - arrived[0] > 0.5


def kept(stack: Stack, name: str, content: bytes) -> str:
    """Keep a private file and return the address of the view that sends it."""
    address = f"/private/{quote(name)}"
    assert stack.post(address, content).text == "kept"
    return address


def test_a_private_file_is_sent_to_whom_the_view_allows_it(stack: Stack) -> None:
    address = kept(stack, "ünvoice 1 %41.pdf", b"%PDF-1.7 for you")
    assert (stack.get(address).status_code, stack.get(address).text) == (403, "not for you")
    answer = stack.get(f"{address}?password")
    assert (answer.status_code, answer.content) == (200, b"%PDF-1.7 for you")
    assert answer.headers["Content-Type"] == "application/pdf"
    assert answer.headers["Cache-Control"] == "private"
    # The view's own, of which nginx would drop most
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "Referrer-Policy" in answer.headers
    assert "X-Accel-Redirect" not in answer.headers
    disposition = stack.get(f"{address}?password&download").headers["Content-Disposition"]
    assert disposition.startswith("attachment; filename")


def test_part_of_a_private_file_can_be_asked_for(stack: Stack) -> None:
    address = kept(stack, "film.mp4", b"0123456789")
    answer = stack.get(f"{address}?password", headers={"Range": "bytes=2-5"})
    assert (answer.status_code, answer.content) == (206, b"2345")


def test_a_private_file_that_may_hold_a_script_is_in_a_sandbox(stack: Stack) -> None:
    address = kept(stack, "page.html", b"<script>alert(1)</script>")
    assert stack.get(f"{address}?password").headers["Content-Security-Policy"].startswith("sandbox")


def test_no_client_can_name_a_private_file(stack: Stack) -> None:
    kept(stack, "secret.txt", b"the secret")
    for path in ("/-nginx/private/secret.txt", "/static/../-nginx/private/secret.txt", "/-nginx/private%2fsecret.txt"):
        answer = stack.raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert b" 404 " in answer.splitlines()[0], path
        assert b"the secret" not in answer
    outside = stack.get("/private/..%2fprobe.sqlite3?password")
    assert outside.status_code in (400, 404)


@pytest.mark.one_transport
def test_django_sends_a_private_file_where_no_nginx_is(stack: Stack) -> None:
    kept(stack, "notes.txt", b"by Django")
    code = (
        "from django.test import RequestFactory; from probe.private_files import private_file; "
        "print(b''.join(private_file(RequestFactory().get('/'), 'notes.txt')))"
    )
    assert "b'by Django'" in stack.exec("uwsgi", "python", "manage.py", "shell", "-v0", "-c", code)


@pytest.mark.needs_sample
def test_the_helper_of_the_sample_is_the_one_that_is_tested() -> None:
    sample, probe = (ROOT / place / "private_files.py" for place in ("app/config", "tests/probe/probe"))
    assert sample.read_text() == probe.read_text()
