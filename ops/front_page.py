"""What a visitor gets now: the front page is asked for after every start, and by `make doctor`.

Containers can be healthy while every page is a 400 or a 500. What is wrong is said with the setting to change.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import sqlite3
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit

from ops import stack, state, trace, wanted
from ops.console import ROOT, Stop, quiet
from ops.needs import BREAKS, COULD, LEVELS, UNSAFE
from ops.stack import Container

SECONDS = 10
# Of a page: enough for its head, where titles and styles are
READ_BYTES = 1 << 20
MOST_REDIRECTS = 5
# Styles and scripts of the page that are asked for
MOST_FILES = 5
LOCAL = ("localhost", "127.0.0.1", "[::1]")
FILES = re.compile(
    r"""<(?:link|script)\b[^>]*?\b(?:href|src)=["']?([^"'\s>]+\.(?:css|m?js)(?:\?[^"'\s>]*)?)["'\s>]""", re.IGNORECASE
)
TITLE = re.compile(r"<title[^>]*>\s*(.*?)\s*</title>", re.IGNORECASE | re.DOTALL)
# The last line of a traceback if a project writes below its own folder
READ_ONLY = re.compile(
    r"Error: .*(Read-only file system|readonly database|unable to open database file|'/(app|manage)/)"
)
HTTPS = "Add overrides/tls.yaml to COMPOSE_FILE in .env, or put a proxy with a certificate in front (docs/go-live.md)"
# Every database that Django has migrated has this table.
MIGRATIONS = "django_migrations"
# Of a traceback, the end says what happened, and where in the project
TRACEBACK_LINES = 6


@dataclass(frozen=True)
class Answer:
    """What came back for one address; status 0 if nothing did."""

    url: str
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    problem: str = ""

    @property
    def title(self) -> str:
        """Return the title of the page, quoted, or nothing."""
        found = TITLE.search(self.body)
        return f' "{unescape(" ".join(found[1].split()))[:80]}"' if found else ""

    @property
    def location(self) -> str:
        """Return the address that this answer redirects to, nothing if it does not."""
        return joined(self.url, self.headers.get("location", "")) if 300 <= self.status < 400 else ""


def joined(page: str, address: str) -> str:
    """Return the whole address of a link as a browser asks for it, nothing if it is none."""
    try:
        return quote(urljoin(page, address), safe=":/?#[]@!$&'()*+,;=%")
    except ValueError:
        return ""


@dataclass(frozen=True)
class Site:
    """Where the site is asked for, and what its configuration says."""

    address: str
    names: Sequence[str]
    https_by_proxy: bool
    # This machine is among the trusted proxies, so that we can ask as the proxy would
    proxy_is_here: bool = False
    https_here: bool = False
    django_https: bool = False

    @classmethod
    def read(cls, files: Sequence[str], config: dict[str, Any]) -> Site:
        """Return the site that these files make."""
        nginx, uwsgi = (config["services"][name]["environment"] for name in ("nginx", "uwsgi"))
        entrance = stack.entrance(config)
        return cls(
            address=stack.published(config, entrance),
            names=[name.strip().removeprefix(".") for name in nginx["NGINX_SERVER_NAMES"].split(",")],
            https_by_proxy=bool(nginx["NGINX_TRUSTED_PROXIES"].strip(",")),
            proxy_is_here=stack.includes(files, "overrides/behind-proxy.yaml"),
            https_here=stack.has_tls(config),
            django_https=str(uwsgi.get("DJANGO_HTTPS", "0")) == "1",
        )

    @property
    def host(self) -> str:
        """Return what a browser sends as Host: without the port where a proxy in front serves that name."""
        name, port = self.names[0], self.address.rpartition(":")[2]
        return f"{name}:{port}" if name in LOCAL or (self.https_here and port != "443") else name


def look() -> tuple[str, list[tuple[str, str]]]:
    """Return what the front page answers, in a line, and what is wrong: a word (breaks, unsafe, could), a sentence."""
    files = state.current_files()
    config, workers = stack.config(files), stack.workers()
    site = Site.read(files, config)
    answer = visit(site)
    findings = [(BREAKS, text) for text in judge(site, answer, workers)]
    report = report_of(workers[0])
    # The setting and the page tell the same.
    known = {text for _, text in findings}
    findings += [(word, text) for word, text in report.get("findings", []) if not (known and word == BREAKS)]
    app = Path(config["services"]["uwsgi"]["build"]["additional_contexts"]["app"])
    if report.get("empty") and (left := left_behind(app)):
        findings.append((UNSAFE, f"the database is empty, and {left} is not: make bring-database FROM={left}"))
    findings += [(UNSAFE, text) for text in cookie_problems(site, report)]
    if changed := wanted.not_taken_in(config, state.current()):
        findings.append((COULD, f"changed since the last `make up`: {', '.join(changed)}. To take it in: make up"))
    result = f"{answer.status}{answer.title}" if answer.status else answer.problem
    path = urlsplit(answer.url).path or "/"
    return f"GET {path} as {site.host}: {result}", sorted(findings, key=lambda finding: LEVELS.index(finding[0]))


def show() -> None:
    """Print what a visitor gets now, as the last thing of a verb that has started something."""
    try:
        line, findings = look()
    except Stop as stopped:
        line, findings = f"could not be asked: {stopped}", []
    print(f"\nFront page: {line}")
    for word, text in findings:
        print(f"  {word:<7} {text}")


def report_of(worker: Container) -> dict[str, Any]:
    """Return what a worker knows of the project (uwsgi/start/stack_look.py); nothing if it does not answer."""
    output = quiet(["docker", "exec", worker.id, "healthcheck.py", "--look"])
    try:
        return dict(json.loads(output or "{}"))
    except ValueError:
        return {}


def visit(site: Site) -> Answer:
    """Return the answer to the front page, behind the redirects that stay on this site."""
    url, https = f"{'https' if site.https_here else 'http'}://{site.host}/", False
    answer = ask(site, url, https)
    for _ in range(MOST_REDIRECTS):
        to = urlsplit(answer.location)
        if not answer.location or (to.hostname or "") not in site.names:
            break
        if to.scheme == "https" and not https and not site.https_here:
            if not site.https_by_proxy:
                break
            https = True
        elif answer.location == answer.url:
            break
        answer = ask(site, answer.location, https)
    return answer


def ask(site: Site, url: str, https: bool = False) -> Answer:
    """Send one GET to the published port, as a proxy that terminates TLS would if `https`."""
    parts = urlsplit(url)
    headers = {"Host": parts.netloc, "Accept": "text/html,*/*", "User-Agent": "django-uwsgi-nginx"}
    if https:
        headers["X-Forwarded-Proto"] = "https"
    address, _, port = site.address.rpartition(":")
    # Not urllib, which would send it through a proxy that the environment names.
    connection = http.client.HTTPConnection(address.strip("[]"), int(port), timeout=SECONDS)
    try:
        with closing(connection):
            if site.https_here:
                connection.sock = over_tls(address.strip("[]"), int(port), parts.hostname or "")
            connection.request("GET", f"{parts.path or '/'}?{parts.query}".removesuffix("?"), headers=headers)
            response = connection.getresponse()
            body = response.read(READ_BYTES).decode(errors="replace")
    except TimeoutError:
        return Answer(url, problem=f"no answer within {SECONDS} s")
    except (OSError, http.client.HTTPException) as problem:
        return Answer(url, problem=f"no answer ({problem})")
    return Answer(url, response.status, {name.lower(): value for name, value in response.getheaders()}, body)


def over_tls(address: str, port: int, name: str) -> ssl.SSLSocket:
    """Return a connection under the name of the site, whatever its certificate: this asks for the page behind it."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    plain = socket.create_connection((address, port), timeout=SECONDS)
    return context.wrap_socket(plain, server_hostname=name)


def judge(site: Site, answer: Answer, workers: Sequence[Container]) -> Iterator[str]:
    """Return what is wrong with this answer, each with what to change and where."""
    if answer.location:
        yield from redirect_problems(site, answer)
    elif answer.status == 0:
        yield f"{site.address} gives {answer.problem}. Look at: make ps, make logs S=nginx"
    elif answer.status == 400:
        yield (
            f"the project refuses the Host {site.host!r}: add the name to ALLOWED_HOSTS in your settings, "
            'ALLOWED_HOSTS = os.environ["DJANGO_ALLOWED_HOSTS"].split(",")'
        )
    elif answer.status >= 500:
        yield from error_problems(answer, workers)
    elif answer.status == 200:
        yield from file_problems(site, answer)


def redirect_problems(site: Site, answer: Answer) -> Iterator[str]:
    """Return why a redirect leads nowhere."""
    to = urlsplit(answer.location)
    name = to.hostname or ""
    if name not in site.names:
        if name.removeprefix("www.") in site.names or f"www.{name}" in site.names:
            yield f"it redirects to {name}, which nginx refuses. In .env, add it: DJANGO_ALLOWED_HOSTS=...,{name}"
    elif to.scheme == "https" and not site.https_by_proxy and not site.https_here:
        where = "DJANGO_HTTPS=0 in .env" if site.django_https else "SECURE_SSL_REDIRECT = False in your settings"
        yield f"it redirects to {answer.location}, and nothing here serves https. {HTTPS}, or set {where}"
    elif to.scheme == "https" and site.https_by_proxy:
        # A proxy on another machine may be the only one that nginx believes.
        if site.proxy_is_here:
            yield (
                "it redirects to https what came by https: the project does not see the scheme. Remove "
                'SECURE_PROXY_SSL_HEADER from your settings, or set it to ("HTTP_X_FORWARDED_PROTO", "https")'
            )
    elif answer.location == answer.url:
        yield f"it redirects to itself, {answer.url}"


def cookie_problems(site: Site, report: Mapping[str, Any]) -> Iterator[str]:
    """Return that browsers drop the cookies of the project, which it sends for https alone."""
    names = report.get("secure_cookies")
    if names and not (site.https_here or site.https_by_proxy):
        where = "DJANGO_HTTPS=0 in .env" if site.django_https else f"{' and '.join(names)} = False in your settings"
        yield f"over http no one can log in: browsers drop cookies that are for https alone. {HTTPS}, or set {where}"


def error_problems(answer: Answer, workers: Sequence[Container]) -> Iterator[str]:
    """Return the end of the traceback that belongs to an error."""
    identifier = answer.headers.get("x-request-id", "")
    found = (
        [text for worker in workers for _, text in trace.about(identifier, trace.log(worker.id))] if identifier else []
    )
    # uWSGI's own line about the request is the last one.
    lines = [text for text in found if identifier not in text and text][-TRACEBACK_LINES:]
    more = f"make trace ID={identifier}" if identifier else "make logs S=uwsgi"
    if any(READ_ONLY.search(line) for line in lines):
        lines.append(
            '/app is read-only; if it is to write there: docs/bring-your-app.md, "Folders that your project writes to"'
        )
    yield "\n          ".join([f"it answers {answer.status}. All of it: {more}", *lines])


def file_problems(site: Site, answer: Answer) -> Iterator[str]:
    """Return the styles and scripts of a page that are missing."""
    urls = [joined(answer.url, unescape(address)) for address in FILES.findall(answer.body)]
    ours = [url for url in dict.fromkeys(urls) if urlsplit(url).netloc == urlsplit(answer.url).netloc]
    missing = [urlsplit(url).path for url in ours[:MOST_FILES] if ask(site, url).status == 404]
    static = [path for path in missing if path.startswith("/static/")]
    if static:
        name = unquote(static[0].removeprefix("/static/"))
        yield f'{static[0]}, a file of that page, is 404. make manage CMD="findstatic {name}" must find it; make deploy'
    elif missing:
        yield f'{missing[0]}, a file of that page, is 404: nginx serves /static/. In settings: STATIC_URL = "/static/"'


def left_behind(app: Path) -> str:
    """Return a file of SQLite next to manage.py that has rows, nothing if there is none."""
    for file in sorted([*app.glob("*.sqlite3"), *app.glob("*.sqlite"), *app.glob("*.db")]):
        try:
            with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
                names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
                # Others have SQLite files as well, as a search index.
                if MIGRATIONS not in names:
                    continue
                own = [name for name in names if not re.match(r"django_|sqlite_|auth_(permission|group)", name)]
                if any(database.execute(f'SELECT 1 FROM "{name}" LIMIT 1').fetchone() for name in own):  # noqa: S608
                    return str(file.relative_to(ROOT) if file.is_relative_to(ROOT) else file)
        except sqlite3.Error:
            continue
    return ""
