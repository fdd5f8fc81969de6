"""Every answer carries the same security headers, from nginx and from Django; those that the project sets are kept."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.support.stack import Stack

OURS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "strict-origin-when-cross-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-site",
    "X-Permitted-Cross-Domain-Policies": "none",
    "Content-Security-Policy": "object-src 'none'; base-uri 'self'; frame-ancestors 'self'",
}
# These two say different things of pages, files and nginx's own answers.
VARYING = {"Content-Security-Policy", "Cross-Origin-Resource-Policy"}
# The one for which there is only one value.
SAME = "X-Content-Type-Options"
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
    "a hidden file": (404, request("/.git/config")),
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
    assert {header: headers.get(header) for header in OURS if header not in VARYING} == {
        header: [value] for header, value in OURS.items() if header not in VARYING
    }
    assert len(headers["Content-Security-Policy"]) == len(headers["Cross-Origin-Resource-Policy"]) == 1
    assert headers["Server"] == ["nginx"]
    assert len(headers["X-Request-ID"]) == 1
    assert not re.search(r"[Dd]jango|[Pp]ython|uWSGI|nginx/", str(headers))


def test_a_range_that_is_not_there_has_them_too(stack: Stack) -> None:
    """Nginx 1.26 sends its added headers twice with a 416; both say the same."""
    status, headers = head(stack, request("/static/probe/style.css", "GET", "Range: bytes=999999-"))
    assert status == 416
    assert {name: set(headers[name]) for name in OURS if name not in VARYING} == {
        name: {value} for name, value in OURS.items() if name not in VARYING
    }


def test_headers_that_the_project_sets_are_kept(stack: Stack) -> None:
    _, headers = head(stack, request("/own-headers"))
    assert all(len(headers[name]) == 1 and headers[name] != [value] for name, value in OURS.items() if name != SAME)
    assert headers[SAME] == ["nosniff"]


@pytest.mark.parametrize(("path", "policy"), [("/version", "same-site"), ("/static/probe/style.css", "cross-origin")])
def test_files_may_be_shown_by_other_sites_and_pages_may_not(stack: Stack, path: str, policy: str) -> None:
    assert head(stack, request(path))[1]["Cross-Origin-Resource-Policy"] == [policy]


def test_error_pages_allow_nothing_but_their_style(stack: Stack) -> None:
    assert head(stack, request("/static/none"))[1]["Content-Security-Policy"] == [STRICT]
    assert head(stack, request("/version"))[1]["Content-Security-Policy"] == [OURS["Content-Security-Policy"]]


def test_a_refused_client_gets_them_too(changed_stack: Callable[[str], Stack]) -> None:
    proxied = changed_stack("behind-proxy")
    sent = request("/echo/login/", "POST", "X-Forwarded-For: 198.51.100.77", "Content-Length: 0")
    answers = [head(proxied, sent) for _ in range(10)]
    assert {status for status, _ in answers} == {200, 429}
    assert all(headers["X-Frame-Options"] == ["SAMEORIGIN"] for _, headers in answers)
