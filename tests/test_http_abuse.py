"""What a hostile client may send: each probe has one answer, breaks nothing and leaves no trace of the inside.

Requests are raw bytes, because an HTTP library would correct them.
"""

from __future__ import annotations

import json
import os
import random
import re
import socket
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import seed as start_from
from hypothesis import strategies as st

from tests.support.stack import Stack

CLOSED = 0
# One seed for all processes of a run, printed with a failure: FUZZ_SEED=... make test K=fuzz
SEED = int(os.environ.setdefault("FUZZ_SEED", str(random.randrange(2**32))))
FUZZ_REQUESTS = 2_000


@dataclass(frozen=True)
class Probe:
    """Bytes, the status they must get (CLOSED: no answer at all), and what must not be in an answer."""

    row: str
    name: str
    sent: bytes
    status: int
    says: bytes = b""
    hides: bytes = b"root:x:0:0"


def get(path: str, *headers: str, method: str = "GET", version: str = "1.1", body: str = "") -> bytes:
    """Return a request that closes its connection."""
    lines = [f"{method} {path} HTTP/{version}", "Host: localhost", "Connection: close", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode("latin-1")


def host(value: str) -> bytes:
    """Return a request with this Host."""
    return f"GET /echo HTTP/1.1\r\nHost: {value}\r\nConnection: close\r\n\r\n".encode("latin-1")


def body(*headers: str, content: str = "") -> bytes:
    """Return a POST with these headers about its body."""
    return get("/echo", *headers, method="POST", body=content)


def many(count: int) -> list[str]:
    """Return as many small headers."""
    return [f"X-{number}: x" for number in range(count)]


PROBES = [
    # Sizes: what is legal arrives, what is not is refused by name, and never as a 502
    Probe("H4", "a cookie of 4.2 kB", get("/echo", "Cookie: a=" + "x" * 4_200), 200),
    Probe("H4", "a cookie of 7 kB", get("/echo", "Cookie: a=" + "x" * 7_000), 200),
    Probe("H4", "a cookie of 9 kB", get("/echo", "Cookie: a=" + "x" * 9_000), 431),
    Probe("H4", "three headers of 7.9 kB", get("/echo", *(f"X-{n}: " + "x" * 7_900 for n in range(3))), 200),
    Probe("H4", "five headers of 7.9 kB", get("/echo", *(f"X-{n}: " + "x" * 7_900 for n in range(5))), 431),
    *(Probe("H5", f"{count} headers", get("/echo", *many(count)), 200) for count in (80, 120, 190)),
    *(Probe("H5", f"{count} headers", get("/echo", *many(count)), 431) for count in (400, 1_100)),
    Probe("H6", "an address of 7 kB", get("/echo/" + "x" * 7_000), 200),
    Probe("H6", "an address of 9 kB", get("/echo/" + "x" * 9_000), 414),
    Probe("H7", "a body said to be 11 MB", body("Content-Length: 11534336"), 413),
    Probe("H7", "a chunk said to be 11 MB", body("Transfer-Encoding: chunked", content="b00000\r\nx"), 413),
    # Where one request ends and the next begins
    Probe("H10", "two lengths", body("Content-Length: 3", "Content-Length: 5", content="abcde"), 400),
    Probe("H10", "two equal lengths", body("Content-Length: 3", "Content-Length: 3", content="abc"), 400),
    Probe(
        "H10", "length and chunks", body("Content-Length: 3", "Transfer-Encoding: chunked", content="0\r\n\r\n"), 400
    ),
    Probe("H10", "chunks twice", body("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), 400),
    Probe("H10", "chunks in HTTP/1.0", get("/echo", "Transfer-Encoding: chunked", method="POST", version="1.0"), 400),
    *(
        Probe("H10", f"encoding {one!r}", body(f"Transfer-Encoding: {one}", content="0\r\n\r\n"), 501)
        for one in ("xchunked", "identity", "gzip, chunked", "chunked, identity", '"chunked"')
    ),
    *(
        Probe("H10", f"length {one!r}", body(f"Content-Length: {one}", content="abc"), 400)
        for one in ("-1", "+3", "0x3", "3,3", "3abc", "", "9" * 30)
    ),
    Probe("H10", "a chunk's size that is none", body("Transfer-Encoding: chunked", content="xyz\r\n"), 400),
    Probe("H10", "a chunk's size that overflows", body("Transfer-Encoding: chunked", content="f" * 17 + "\r\n"), 400),
    Probe("H10", "a chunk that does not end", body("Transfer-Encoding: chunked", content="3\r\nabcdef"), 400),
    Probe("H10", "chunks as they should be", body("Transfer-Encoding: chunked", content="3\r\nabc\r\n0\r\n\r\n"), 200),
    Probe(
        "H10", "a second request within the first", body("Content-Length: 0", content="GET /fail HTTP/1.1\r\n\r\n"), 200
    ),
    # Characters
    Probe("H12", "a bare LF ends a line", b"GET /echo HTTP/1.1\nHost: localhost\nConnection: close\n\n", 200),
    Probe("H12", "a bare CR in a header", get("/echo", "X-A: a\rX-B: b"), 400),
    Probe("H12", "NUL in a header", get("/echo", "X-A: a\0b"), 400),
    Probe("H12", "0x01 in a header", get("/echo", "X-A: a\x01b"), 200),
    Probe("H12", "0xff in a header", get("/echo", "X-A: \xff\xfe"), 200),
    Probe("H12", "a space before the colon", get("/echo", "X-A : b"), 400),
    Probe("H12", "a header without a colon", get("/echo", "nothing"), 200, hides=b"nothing"),
    Probe("H12", "a header without a name", get("/echo", ": b"), 400),
    Probe("H12", "a folded header", get("/echo", "X-A: a", " folded"), 400),
    Probe("H13", "NUL in the address", get("/echo\0"), 400),
    Probe("H13", "%00 in the address", get("/echo/%00"), 400),
    Probe("H13", "a space in the address", get("/echo/a b"), 400),
    Probe("H13", "a percent sign alone", get("/echo/%"), 400),
    Probe("H13", "%zz", get("/echo/%zz"), 400),
    Probe("H13", "%ff", get("/echo/%ff"), 200),
    Probe("H13", "half a character", get("/echo/%c3"), 200),
    Probe("H13", "an overlong dot", get("/static/%c0%ae%c0%ae/etc/passwd"), 404),
    Probe("H13", "raw bytes", get("/echo/\xc3\xa9\xff"), 200),
    Probe("H13", "a question mark at the end", get("/echo?"), 200),
    Probe("H13", "a broken query", get("/echo?%ff&=&&a=%&%00"), 200),
    *(
        Probe("H14", f"CRLF in a redirect, {name}", get(path), status, hides=b"\nSet-Cookie: x=1")
        for name, path, status in (
            ("encoded", "/slash/%0d%0aSet-Cookie:%20x=1", 301),
            ("LF alone", "/slash/%0aSet-Cookie:%20x=1", 301),
            ("in the query", "/slash/a?%0d%0aSet-Cookie:%20x=1", 301),
            ("of a file", "/static/probe%0d%0aSet-Cookie:%20x=1", 404),
            ("twice encoded", "/slash/%250d%250aSet-Cookie:%20x=1", 301),
            ("as Unicode", "/slash/%e5%98%8a%e5%98%8dSet-Cookie:%20x=1", 301),
        )
    ),
    # Files outside the folder
    *(
        Probe("H15", path, get(path), status)
        for path, status in (
            ("/../../etc/passwd", 400),
            ("/static/../../etc/passwd", 400),
            ("/static/%2e%2e/%2e%2e/etc/passwd", 400),
            ("/static/..%2f..%2fetc/passwd", 400),
            ("/static/%252e%252e/etc/passwd", 404),
            ("/static/..%5c..%5cetc/passwd", 404),
            ("/static/..\\..\\etc\\passwd", 404),
            ("/static//etc/passwd", 404),
            ("/static/./../static/probe/style.css", 200),
            ("/static//probe//style.css", 200),
            ("//static//probe//style.css", 404),
            ("/static/....//....//etc/passwd", 404),
            ("/static/probe/style.css/", 404),
            ("/static/probe", 404),
            ("/static/probe/", 404),
            ("/static/", 404),
            ("/static", 404),
        )
    ),
    *(Probe("H16", path, get(path), 404) for path in ("/static../etc/passwd", "/static..", "/media../etc/passwd")),
    *(
        Probe("H17", path, get(path), 404, says=b"Page not found")
        for path in ("/static/.git/config", "/static/%2egit/config", "/static/.env", "/static/a/.svn/entries")
    ),
    # nginx has none of these on its disk; the project may have a view there.
    *(
        Probe("H17", path, get(path), 404, says=b"Not Found")
        for path in (
            "/.git/config",
            "/%2egit/config",
            "/.env",
            "/.htpasswd",
            "/a/.svn/entries",
            "/.DS_Store",
            "/settings.py~",
            "/settings.py.bak",
            "/dump.sql",
            "/wsgi.py.swp",
            "/index.html.old",
            "/site.conf.orig",
            "/.well-known/security.txt",
            "/errors/error.html",
        )
    ),
    # For whom the request is
    Probe("H18", "an absolute address", host("evil.test").replace(b" /echo", b" http://localhost/echo"), 200),
    Probe("H18", "another's absolute address", host("localhost").replace(b" /echo", b" http://evil.test/echo"), CLOSED),
    *(
        Probe("H19", f"Host {value!r}", host(value), status)
        for value, status in (
            ("evil.test", CLOSED),
            ("localhost.evil.test", CLOSED),
            ("evil-localhost", CLOSED),
            ("10.1.2.3", CLOSED),
            ("[::2]", CLOSED),
            ("", 400),
            ("LOCALHOST", 200),
            ("localhost.", 200),
            ("localhost:99", 200),
            ("user@localhost", CLOSED),
            ("localhost,evil.test", CLOSED),
            ("localhost evil.test", 400),
            ("localhost/evil", 400),
            ("localhost\\evil", CLOSED),
            ("..", 400),
            ("local\0host", 400),
            ("localhost%00", CLOSED),
            ("[", CLOSED),
        )
    ),
    # Not refused by nginx, but what arrives is a name it has checked and a port that is a number.
    Probe("H19", "two ports", host("localhost:80:90"), 200, says=b'"host": "localhost:90"'),
    Probe("H19", "a port that is none", host("localhost:port"), 200, says=b'"host": "localhost"'),
    Probe("H19", "no Host", b"GET /echo HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
    Probe("H19", "two Hosts", get("/echo", "Host: evil.test"), 400),
    Probe("H19", "no Host in HTTP/1.0", b"GET /echo HTTP/1.0\r\n\r\n", CLOSED),
    # Methods and versions
    *(
        Probe("H27", f"method {method}", get("/form", method=method), status)
        for method, status in (
            ("HEAD", 200),
            ("OPTIONS", 200),
            ("TRACE", 405),
            ("CONNECT", 405),
            ("get", 400),
            ("GeT", 400),
            ("PROPFIND", 403),
            ("A" * 40, 403),
            ("GET\t", 400),
            ("G\0T", 400),
        )
    ),
    Probe("H27", "OPTIONS *", get("*", method="OPTIONS"), 400),
    Probe("H27", "an authority", get("localhost:80", method="CONNECT"), 400),
    Probe("H28", "HTTP/0.9", b"GET /echo\r\n", CLOSED),
    Probe("H28", "HTTP/2 without TLS", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    Probe("H28", "HTTP/3.1", get("/echo", version="3.1"), 505),
    Probe("H28", "HTTP/1.99", get("/echo", version="1.99"), 200),
    Probe("H28", "HTTP/one", get("/echo", version="one"), 400),
    Probe("H28", "TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 40, 400),
    Probe("H28", "nothing but blank lines", b"\r\n" * 50, CLOSED),
    Probe("H28", "another protocol", b"SSH-2.0-OpenSSH_9.6\r\n\r\n", 400),
    # The rest
    Probe("H22", "httpoxy", get("/echo", "Proxy: http://evil.test"), 200, hides=b"evil.test"),
    Probe(
        "H23", "a forged address", get("/echo", "X-Forwarded-For: 6.6.6.6", "X-Real-IP: 6.6.6.6"), 200, hides=b"6.6.6.6"
    ),
    Probe(
        "H23",
        "a forged name",
        get("/echo", "X-Forwarded-Host: evil.test", "Forwarded: host=evil.test"),
        200,
        hides=b"evil.test",
    ),
    Probe(
        "H23",
        "a forged scheme",
        get("/echo", "X-Forwarded-Proto: https", "X-Forwarded-Ssl: on"),
        200,
        hides=b'"scheme": "https"',
    ),
    Probe(
        "H23", "underscores", get("/echo", "X_Forwarded_For: 6.6.6.6", "REMOTE_ADDR: 6.6.6.6"), 200, hides=b"6.6.6.6"
    ),
    Probe("H24", "Expect", body("Expect: 100-continue", "Content-Length: 3", content="abc"), 200),
    Probe("H25", "1 000 ranges", get("/static/probe/style.css", "Range: bytes=" + ",".join(["0-"] * 1_000)), 200),
    Probe("H25", "ranges that overflow", get("/static/probe/style.css", "Range: bytes=0-,-9223372036854775809"), 416),
    Probe("H26", "a wish for another server's file", get("/echo", "X-Accel-Redirect: /-nginx/errors/error.html"), 200),
    Probe("H26", "an error page by its name", get("/-nginx/errors/error.html"), 404, says=b"Page not found"),
    Probe("H34", "versions", get("/static/none"), 404, hides=b"nginx/"),
    Probe("H40", "an exception", get("/fail"), 500, hides=b"a secret of the project"),
]


def processes(stack: Stack) -> dict[str, list[str]]:
    """Return the processes that serve."""
    return {service: stack.processes(service) for service in ("nginx", "uwsgi")}


@pytest.fixture(scope="module")
def before(shared_stack: Stack) -> dict[str, list[str]]:
    """The processes before the first probe."""
    return processes(shared_stack)


@pytest.fixture(scope="module", autouse=True)
def logged(shared_stack: Stack) -> dict[str, int]:
    """How much was in the logs before the first probe."""
    return {service: len(shared_stack.complete_log(service)) for service in ("nginx", "uwsgi")}


def status_of(answer: bytes) -> int:
    """Return the status of an answer, CLOSED if there is none."""
    if not answer:
        return CLOSED
    # The second form is our error page alone: to one who names no version nginx answers by HTTP/0.9.
    status_line = rb"HTTP/1\.1 (\d{3}) |<!doctype html>[^\0]*?<title>(\d{3})"
    found = re.match(status_line, answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n"))
    assert found, answer[:200]
    return int(found[1] or found[2])


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: f"{probe.row}-{probe.name[:60]!a}")
def test_a_hostile_request_gets_its_answer(stack: Stack, before: dict[str, list[str]], probe: Probe) -> None:
    answer = stack.raw(probe.sent)
    assert status_of(answer) == probe.status, answer[:300]
    assert probe.says in answer
    assert probe.hides not in answer
    assert b"Traceback" not in answer


header_names = st.one_of(
    st.sampled_from(
        ["Host", "Content-Length", "Transfer-Encoding", "Cookie", "Range", "Expect", "Accept", "Connection"]
    ),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20),
)
noise = st.binary(max_size=60)
values = st.one_of(
    noise, st.sampled_from([b"localhost", b"chunked", b"0", b"5", b"-1", b"bytes=0-", b"100-continue", b"close"])
)
methods = st.one_of(st.sampled_from([b"GET", b"POST", b"HEAD", b"PUT", b"OPTIONS", b"TRACE"]), noise)
paths = st.one_of(st.sampled_from([b"/echo", b"/form", b"/unread", b"/static/probe/style.css", b"/"]), noise)
versions = st.one_of(st.sampled_from([b"HTTP/1.1", b"HTTP/1.0"]), noise)


@st.composite
def hostile_requests(draw: st.DrawFn) -> bytes:
    """Bytes that are nearly a request, most of them for a Host that is ours."""
    line = b" ".join([draw(methods), draw(paths) + draw(st.one_of(st.just(b""), noise)), draw(versions)])
    headers = draw(st.lists(st.tuples(header_names, values), max_size=6))
    lines = [line, b"Host: localhost", *(name.encode() + b": " + value for name, value in headers)]
    return b"\r\n".join([*lines, b"", draw(noise)])


def ask(address: tuple[str, int], sent: bytes) -> bytes:
    """Send bytes, say that there will be no more, and return what comes back."""
    with socket.create_connection(address, timeout=20) as connection:
        try:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while chunk := connection.recv(65_536):
                answer += chunk
        except (ConnectionResetError, BrokenPipeError):
            pass
        return answer


@pytest.mark.slow
def test_fuzzed_requests_break_nothing(stack: Stack, before: dict[str, list[str]]) -> None:
    """Nothing that hypothesis thinks of is answered by a 5xx that says that something broke, or ends a worker."""
    address = stack.address()

    @start_from(SEED)
    @settings(max_examples=FUZZ_REQUESTS, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(hostile_requests())
    def fuzz(sent: bytes) -> None:
        status = status_of(ask(address, sent))
        assert status < 500 or status in (501, 505), f"{status} for {sent!r}"

    print(f"FUZZ_SEED={SEED}")
    fuzz()
    assert processes(stack) == before, f"a worker ended; FUZZ_SEED={SEED}"


def test_after_all_that_the_stack_serves_as_before(
    stack: Stack, before: dict[str, list[str]], logged: dict[str, int]
) -> None:
    assert stack.get("/echo").status_code == 200
    assert processes(stack) == before, "a worker ended"
    log = stack.log("uwsgi")[logged["uwsgi"] :]
    assert log.count("Traceback (most recent") == log.count("RuntimeError: a secret of the project")
    entries = [
        json.loads(line) for line in stack.complete_log("nginx")[logged["nginx"] :].splitlines() if line.startswith("{")
    ]
    broken = [one for one in entries if one["status"] in (500, 502, 503, 504) and one["uri"] != "/fail"]
    assert broken == []
