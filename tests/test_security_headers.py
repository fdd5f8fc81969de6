"""Every answer carries two security headers; what a page may do besides is for the project to say, not for nginx."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.support.stack import Stack

OURS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "strict-origin-when-cross-origin"}
# Each of these would take from a page what it may do without it.
OF_THE_PROJECT = (
    "X-Frame-Options",
    "Permissions-Policy",
    "Cross-Origin-Opener-Policy",
    "Cross-Origin-Resource-Policy",
    "Access-Control-Allow-Origin",
    "Content-Security-Policy",
)
STRICT = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def request(path: str, method: str = "GET", *headers: str) -> bytes:
    """Return a request as bytes."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode()


def head(stack: Stack, sent: bytes) -> tuple[int, dict[str, list[str]]]:
    """Return the status of an answer and all values of each of its headers."""
    lines = stack.raw(sent).split(b"\r\n\r\n")[0].decode().split("\r\n")
    found: dict[str, list[str]] = {}
    for line in lines[1:]:
        name, _, value = line.partition(": ")
        found.setdefault(name, []).append(value)
    return int(lines[0].split()[1]), found


ANSWERS = {
    "a page": (200, request("/version")),
    "a page's head": (200, request("/version", "HEAD")),
    "a redirect": (301, request("/slash/here")),
    "a file": (200, request("/static/probe/style.css")),
    "a file not modified": (304, request("/static/probe/style.css", "GET", "If-Modified-Since: {modified}")),
    "a malformed request": (400, b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n"),
    "no request at all": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
    "the project's 403": (403, request("/status/403")),
    "a missing file": (404, request("/static/none")),
    "the project's 404": (404, request("/nowhere")),
    "a hidden file": (404, request("/static/.git/config")),
    "an unknown method": (405, request("/version", "TRACE")),
    "too large": (413, request("/echo", "POST", "Content-Length: 99999999")),
    "too long": (414, request("/" + "x" * 9_000)),
    "headers too large": (431, request("/echo", "GET", "Cookie: " + "x" * 9_000)),
    "the project's 500": (500, request("/fail")),
    "a worker that died": (502, request("/kill")),
    "a version that is none": (505, b"GET / HTTP/7.0\r\nHost: localhost\r\n\r\n"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_every_answer_has_each_security_header_once(stack: Stack, name: str) -> None:
    """H33, H34."""
    status, sent = ANSWERS[name]
    modified = stack.get("/static/probe/style.css").headers["Last-Modified"].encode()
    answered, headers = head(stack, sent.replace(b"{modified}", modified))
    assert answered == status
    assert {header: headers.get(header) for header in OURS} == {header: [value] for header, value in OURS.items()}
    assert [name for name in OF_THE_PROJECT if len(headers.get(name, [])) > 1] == []
    assert headers["Server"] == ["nginx"]
    assert len(headers["X-Request-ID"]) == 1
    assert not re.search(r"[Dd]jango|[Pp]ython|uWSGI|nginx/", str(headers))


def test_a_range_that_is_not_there_has_them_too(stack: Stack) -> None:
    """Nginx 1.26 sends its added headers twice with a 416; both say the same."""
    status, headers = head(stack, request("/static/probe/style.css", "GET", "Range: bytes=999999-"))
    assert status == 416
    assert {name: set(headers[name]) for name in OURS} == {name: {value} for name, value in OURS.items()}


@pytest.mark.parametrize("path", ["/version", "/status/403", "/nowhere", "/media/a-page"])
def test_a_page_may_do_what_the_project_lets_it_do(stack: Stack, path: str) -> None:
    headers = head(stack, request(path))[1]
    assert [name for name in OF_THE_PROJECT if name in headers] == []


def test_headers_that_the_project_sets_are_kept(stack: Stack) -> None:
    own = dict(stack.get("/own-headers").headers)
    _, headers = head(stack, request("/own-headers"))
    assert {name: values for name, values in headers.items() if name in own} == {
        name: [value] for name, value in own.items()
    } | {name: headers[name] for name in ("Date", "X-Request-ID", "Connection")}
    assert headers["X-Content-Type-Options"] == ["nosniff"]
    assert headers["Referrer-Policy"] == ["no-referrer"]


def test_error_pages_allow_nothing_but_their_style(stack: Stack) -> None:
    headers = head(stack, request("/static/none"))[1]
    assert (headers["Content-Security-Policy"], headers["X-Frame-Options"]) == ([STRICT], ["DENY"])


def test_a_refused_client_gets_them_too(changed_stack: Callable[[str], Stack]) -> None:
    proxied = changed_stack("behind-proxy")
    sent = request("/echo/login/", "POST", "X-Forwarded-For: 198.51.100.77", "Content-Length: 0")
    answers = [head(proxied, sent) for _ in range(10)]
    assert {status for status, _ in answers} == {200, 429}
    assert all(headers[name] == [value] for _, headers in answers for name, value in OURS.items())
