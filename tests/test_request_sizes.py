"""No legal request is a 502, whatever its size. What is too large, or too much: test_http_abuse.py."""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.support.stack import Stack

MEBIBYTE = 1 << 20


def test_ten_megabytes_arrive_intact(stack: Stack) -> None:
    body = os.urandom(10 * MEBIBYTE)
    answer = stack.post("/echo", body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["sha256"] == hashlib.sha256(body).hexdigest()


def test_chunked_body_arrives_intact(stack: Stack) -> None:
    parts = [os.urandom(50_000) for _ in range(20)]
    answer = stack.post("/echo", iter(parts))  # type: ignore[arg-type]
    assert answer.json()["sha256"] == hashlib.sha256(b"".join(parts)).hexdigest()


@pytest.mark.slow
@pytest.mark.one_transport
@pytest.mark.parametrize("sizes", [(10, 10, 10, 10), (198,)])
def test_forms_with_large_files_arrive_intact(changed_stack: Callable[[str], Stack], sizes: tuple[int, ...]) -> None:
    """Each is written three times: by nginx, by uWSGI and by Django. In memory, four of 10 MB did not fit."""
    stack = changed_stack("large-uploads")
    content = os.urandom(max(sizes) * MEBIBYTE)

    def sent(size: int) -> str:
        files = {"file": content[: size * MEBIBYTE]}
        answer = requests.post(stack.url("/form-files"), files=files, timeout=60)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["file"])

    with ThreadPoolExecutor(len(sizes)) as clients:
        checksums = list(clients.map(sent, sizes))
    assert checksums == [hashlib.sha256(content[: size * MEBIBYTE]).hexdigest() for size in sizes]
    assert stack.container("uwsgi")["RestartCount"] == 0


def test_over_the_limit_is_413_before_django_sees_it(stack: Stack) -> None:
    head = f"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: {10 * MEBIBYTE + 1}\r\n\r\n"
    answer = stack.raw(head.encode())
    assert b" 413 " in answer.splitlines()[0]
    assert b"The request is too large" in answer


@pytest.mark.parametrize("size", [100, 100_000, 2_000_000])
def test_a_view_that_does_not_read_the_body_is_heard(stack: Stack, size: int) -> None:
    answer = stack.post("/unread", b"x" * size)
    assert (answer.status_code, answer.text) == (403, "refused unread")


def test_headers_up_to_nginxs_limit_reach_django(stack: Stack) -> None:
    large = {f"X-Large-{number}": "x" * 7_900 for number in range(3)}
    assert stack.get("/echo?q=" + "x" * 7_000, headers=large).status_code == 200


def test_large_response_headers_reach_the_client(stack: Stack) -> None:
    answer = stack.get("/headers/12000")
    assert (answer.status_code, answer.text) == (200, "many headers")


def test_large_response_reaches_the_client(stack: Stack) -> None:
    assert len(stack.get(f"/bytes/{20 * MEBIBYTE}").content) == 20 * MEBIBYTE
