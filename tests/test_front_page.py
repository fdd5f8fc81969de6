"""After every start, and by `make doctor`, it is said what a visitor gets, and what to change where that is bad."""

from __future__ import annotations

import sqlite3
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ops import doctor, front_page, stack, trace
from ops.front_page import Answer, Site
from tests.support.stack import Stack, run
from tests.test_state import container

Pages = dict[str, tuple[int, str]]
Serve = Callable[..., Site]
STYLED = '<title> The shop\n</title><link rel="stylesheet" href="/static/shop.css"><script src=/assets/a.js></script>'


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a site: of each path, status and body, of a redirect the address."""
    servers = []

    def start(pages: Pages, tls: ssl.SSLContext | None = None) -> Site:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                scheme = self.headers.get("X-Forwarded-Proto", "http")
                status, body = pages.get(f"{scheme}:{self.path}") or pages.get(self.path, (404, ""))
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", body.replace("HOST", self.headers["Host"]))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                """Write nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return Site(f"127.0.0.1:{server.server_port}", ["localhost", "shop.example"], https_by_proxy=False)

    yield start
    for server in servers:
        server.shutdown()


def judged(site: Site) -> tuple[Answer, list[str]]:
    """Return what a visitor gets, and what is said of it."""
    answer = front_page.visit(site)
    return answer, [*front_page.judge(site, answer, [])]


GOOD: Pages = {"/": (200, STYLED), "/static/shop.css": (200, ""), "/assets/a.js": (200, "")}


def test_a_good_page_is_told_by_its_title_and_nothing_else(serve: Serve) -> None:
    answer, message = judged(serve(GOOD))
    assert (answer.status, answer.title, message) == (200, ' "The shop"', [])


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_site_without_a_front_page_is_no_alarm(serve: Serve, status: int) -> None:
    assert judged(serve({"/": (status, "")}))[1] == []


def test_redirects_on_the_site_are_followed(serve: Serve) -> None:
    answer, message = judged(
        serve({"/": (302, "/en/"), "/en/": (301, "http://HOST/en/shop"), "/en/shop": (200, "here")})
    )
    assert (answer.body, message) == ("here", [])


@pytest.mark.parametrize(
    ("pages", "message"),
    [
        ({"/": (301, "https://HOST/")}, "or set SECURE_SSL_REDIRECT = False in your settings"),
        ({"/": (302, "/")}, "it redirects to itself"),
        ({"/": (301, "http://www.shop.example/")}, "www.shop.example, which nginx refuses. In .env"),
        ({"/": (400, "")}, "add the name to ALLOWED_HOSTS in your settings"),
        ({"/": (500, "")}, "it answers 500"),
        (
            {**GOOD, "/static/shop.css": (404, "")},
            '/static/shop.css, a file of that page, is 404. make manage CMD="find',
        ),
        ({**GOOD, "/assets/a.js": (404, "")}, 'In settings: STATIC_URL = "/static/"'),
    ],
)
def test_what_is_bad_is_said_with_the_setting_to_change(serve: Serve, pages: Pages, message: str) -> None:
    assert [message in text for text in judged(serve(pages))[1]] == [True]


def test_odd_addresses_on_a_page_are_no_error(serve: Serve) -> None:
    """What a template or an editor has written must not end a good deploy with a traceback."""
    links = "".join(f'<link rel="stylesheet" href="{href}">' for href in ("http://[broken/a.css", "/static/stätte.css"))
    _, message = judged(serve({"/": (200, links)}))
    assert ["findstatic stätte.css" in line for line in message] == [True]
    for address in ("http://[broken", "/übersicht", "http://HOST:port/"):
        front_page.visit(serve({"/": (302, address)}))


def test_a_redirect_to_https_is_told_from_a_loop(serve: Serve) -> None:
    """Behind a proxy we ask as the proxy does; one on another machine may be the only one that nginx believes."""
    to_https: Pages = {"http:/": (301, "https://HOST/"), "https:/": (200, "over https")}
    plain = serve(to_https)
    behind = replace(plain, https_by_proxy=True)
    assert "DJANGO_HTTPS=0 in .env" in judged(replace(plain, django_https=True))[1][0]
    assert (judged(behind)[0].body, judged(behind)[1]) == ("over https", [])
    looping = replace(behind, address=serve({"/": (301, "https://HOST/")}).address)
    assert judged(looping)[1] == []
    assert "SECURE_PROXY_SSL_HEADER" in judged(replace(looping, proxy_is_here=True))[1][0]


def test_cookies_for_https_alone_are_named_where_nothing_serves_https(serve: Serve) -> None:
    """The login form comes back, again and again, without a word."""
    site, report = serve(GOOD), {"secure_cookies": ["SESSION_COOKIE_SECURE"]}
    (message,) = front_page.cookie_problems(site, report)
    assert "overrides/tls.yaml" in message
    assert "SESSION_COOKIE_SECURE = False in your settings" in message
    for served in (replace(site, https_here=True), replace(site, https_by_proxy=True)):
        assert [*front_page.cookie_problems(served, report)] == []
    assert [*front_page.cookie_problems(site, {"secure_cookies": []})] == []


def test_a_stack_that_serves_https_is_asked_over_https(serve: Serve, tmp_path: Path) -> None:
    """By its name, and whatever its certificate."""
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=other", "-keyout", "key"]
    assert run(*request, "-out", "certificate", cwd=tmp_path).returncode == 0
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    site = serve({"/": (302, "https://HOST/shop"), "/shop": (200, "over https")}, context)
    answer, message = judged(replace(site, https_here=True))
    assert (answer.body, message, set(names)) == ("over https", [], {"localhost"})


@pytest.mark.parametrize("targets", [(8080, 8443), (8443, 8080), (8080,)])
def test_the_port_of_https_is_known_by_its_number_not_by_its_place(
    monkeypatch: pytest.MonkeyPatch, targets: tuple[int, ...]
) -> None:
    monkeypatch.setattr(stack, "workers", lambda *_: [container("nginx-socket")])
    monkeypatch.setattr(stack, "docker", lambda *words: f"127.0.0.1:1{words[-1].partition('/')[0]}\n")
    environment = {"HTTPS_SOCKET": "127.0.0.1:443", "HTTP_SOCKET": "127.0.0.1:80"} | (
        {"HTTPS": "1"} if 8443 in targets else {}
    )
    ports = {"ports": [{"target": target} for target in targets], "environment": environment}
    config = {"services": {"nginx-socket": ports, "host": {**ports, "network_mode": "host"}}}
    assert stack.published(config, "nginx-socket") == ("127.0.0.1:18443" if 8443 in targets else "127.0.0.1:18080")
    assert stack.published(config, "host") == ("127.0.0.1:443" if 8443 in targets else "127.0.0.1:80")


@pytest.mark.parametrize(("port", "host"), [(443, "shop.example"), (8443, "shop.example:8443")])
def test_the_port_of_https_is_in_the_host_as_a_browser_sends_it(port: int, host: str) -> None:
    assert Site(f"127.0.0.1:{port}", ["shop.example"], https_by_proxy=False, https_here=True).host == host


def test_nothing_that_answers_is_said() -> None:
    answer, message = judged(Site("127.0.0.1:1", ["localhost"], False))
    assert answer.status == 0
    assert "gives no answer (" in message[0]


def test_the_end_of_the_traceback_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        "request id-of-it: GET /",
        "Traceback (most recent call last):",
        '  File "/app/shop/views.py", line 3, in page',
        "    return 1 / 0",
        "ZeroDivisionError: division by zero",
        "GET / 500 in 3 ms by worker 1, request id-of-it",
    ]
    monkeypatch.setattr(trace, "log", lambda _: [("", line) for line in lines])
    answer = Answer("http://localhost/", 500, {"x-request-id": "id-of-it"})
    (message,) = front_page.judge(Site("", ["localhost"], False), answer, [container("uwsgi")])
    assert message.splitlines()[0] == "it answers 500. All of it: make trace ID=id-of-it"
    assert [line.strip() for line in message.splitlines()[2:]] == [line.strip() for line in lines[2:5]]


@pytest.mark.parametrize(
    ("last", "hint"),
    [
        ("OSError: The directory of your index '/app/sandbox/index' cannot be created", True),
        ("sqlite3.OperationalError: attempt to write a readonly database", True),
        ("OSError: [Errno 30] Read-only file system: 'cache'", True),
        ("ValueError: /app/ is no number", False),
    ],
)
def test_a_folder_that_cannot_be_written_is_explained(monkeypatch: pytest.MonkeyPatch, last: str, hint: bool) -> None:
    lines = ["request id-of-it: GET /", "Traceback (most recent call last):", "  File ...", last]
    lines.append("GET / 500 in 3 ms by worker 1, request id-of-it")
    monkeypatch.setattr(trace, "log", lambda _: [("", line) for line in lines])
    answer = Answer("http://localhost/", 500, {"x-request-id": "id-of-it"})
    (message,) = front_page.judge(Site("", ["localhost"], False), answer, [container("uwsgi")])
    assert ("Folders that your project writes to" in message) == hint


def test_a_database_left_next_to_the_project_is_found(tmp_path: Path) -> None:
    def make(name: str, table: str, rows: int) -> None:
        with closing(sqlite3.connect(tmp_path / name)) as database:
            database.execute(f"CREATE TABLE {table} (id)")
            database.executemany(f"INSERT INTO {table} VALUES (?)", [(row,) for row in range(rows)])  # noqa: S608
            database.commit()

    (tmp_path / "not-one.db").write_text("this is no database")
    make("migrated.sqlite3", "django_migrations", 3)
    make("empty.sqlite3", "shop_product", 0)
    # As healthchecks': an index for its search, which is not to replace the project's database
    make("search.db", "pages", 3)
    assert front_page.left_behind(tmp_path) == ""
    make("shop.sqlite3", "shop_product", 1)
    assert front_page.left_behind(tmp_path) == ""
    make("shop.sqlite3", "django_migrations", 1)
    assert front_page.left_behind(tmp_path) == str(tmp_path / "shop.sqlite3")


@pytest.mark.slow_on_tcp
def test_doctor_and_every_start_say_it_from_the_running_stack(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPOSE_PROJECT_NAME", stack.project)
    line, message = front_page.look()
    assert line == f'GET / as localhost:{stack.port}: 404 "Not Found"'
    assert [word for word, _ in message] == ["could"]
    assert "security.W" in message[0][1]
    done = run("ops/run", "doctor", environment={"COMPOSE_PROJECT_NAME": stack.project})
    assert done.stdout.splitlines()[0] == f"Front page: {line}"
    bad = doctor.examine(doctor.Facts({}, {}, {}, {}, findings=[("unsafe", "DEBUG is on")]), [doctor.page])
    assert bad == ["unsafe: DEBUG is on"]
