"""What uWSGI calls: the project's application, with two things around it that must not depend on the project.

The traceback of every unhandled exception is on stderr, once, with the id of its request. Django reports exceptions
through `logging` alone, and with DEBUG off its own configuration of that writes nothing: it mails to ADMINS.

A health check leaves no trace. A project without /healthz would log a 404 every few seconds, and one with other
ALLOWED_HOSTS an error, which it would also mail to ADMINS.
"""

import contextlib
import importlib
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from types import TracebackType
from typing import Any, TextIO

import stack_memory
import stack_warm_up
from django.conf import settings
from django.core.signals import got_request_exception

try:
    import uwsgi
except ImportError:  # it exists only inside uWSGI
    uwsgi = None

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]
# How Python, and every library that formats tracebacks, begins one
TRACEBACK = "Traceback (most recent call last)"
# A variable of the uwsgi protocol. Clients cannot set it: what they send arrives as HTTP_*.
HEALTH_CHECK = "HEALTH_CHECK"
CHUNK = 65_536


class Request:
    """The request that a worker handles, and what is known of its failure."""

    __slots__ = ("exception", "line", "written")

    def __init__(self, environ: Environ) -> None:
        identifier, method = environ.get("HTTP_X_REQUEST_ID", "-"), environ.get("REQUEST_METHOD", "")
        # REQUEST_URI is as the client sent it, with no line break that could forge a line.
        self.line = f"request {identifier}: {method} {environ.get('REQUEST_URI', '')}"
        self.exception: BaseException | None = None
        self.written = False


# asgiref copies it to the threads in which it runs asynchronous middleware.
current: ContextVar[Request | None] = ContextVar("current", default=None)


def note_exception(**_: object) -> None:
    """Remember the exception that Django is about to log, or not."""
    if request := current.get():
        request.exception, request.written = sys.exception(), False


def noting(stream: TextIO) -> None:
    """Have a stream notice when the project writes the traceback itself; it is then not written again."""
    write = stream.write

    def noticed(text: str) -> int:
        request = current.get()
        if request and request.exception and TRACEBACK in text:
            request.written = True
        return write(text)

    stream.write = noticed  # type: ignore[method-assign]


def report(request: Request, exception: BaseException) -> None:
    """Write a traceback with its request, in one piece: workers share this stream."""
    print(f"{request.line}\n{''.join(traceback.format_exception(exception))}", end="", file=sys.stderr, flush=True)


def uncaught(kind: type[BaseException], exception: BaseException, trace: TracebackType | None) -> None:
    """Write what Django has not caught, as while an answer is streamed; uWSGI calls sys.excepthook for it."""
    if request := current.get():
        report(request, exception)
    else:
        sys.__excepthook__(kind, exception, trace)


def project() -> Application:
    """Return the project's application, by the name in UWSGI_MODULE."""
    module, _, name = os.environ["UWSGI_MODULE"].partition(":")
    found: Application = getattr(importlib.import_module(module), name or "application")
    return found


def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Pass a request to the project, and see to the traceback if it fails."""
    request = Request(environ)
    current.set(request)
    if asked_for := environ.get(HEALTH_CHECK):
        return look(start_response) if asked_for == "look" else health(request, environ, start_response)
    return followed(request, environ, start_response)


def followed(request: Request, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Return the project's answer, once the traceback of what it has not handled is written."""
    answer = served(environ, start_response)
    if request.exception:
        if not request.written:
            report(request, request.exception)
        # It holds every local variable of the view.
        request.exception = None
    if environ.get("wsgi.multithread"):
        drain(environ["wsgi.input"])
    if uwsgi:
        growth.check(uwsgi.worker_id())
    return answer


def drain(body: Any) -> None:
    """Read what the view has not: if uWSGI closed the connection before, nginx would answer with a 502.

    With one thread, post-buffering in uwsgi.ini has read it before the view runs.
    """
    while body.read(CHUNK):
        pass


def look(start_response: StartResponse) -> Iterable[bytes]:
    """Return what this worker knows of the project."""
    import stack_look  # noqa: PLC0415 - its own imports need a project that is set up

    start_response("200 OK", [("Content-Type", "application/json")])
    return [stack_look.look()]


# Whether the project answers /healthz; None until a health check has found out, in each worker
has_own: bool | None = None


def health(request: Request, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer a health check: by the project if it answers /healthz or fails, else that this worker is alive."""
    global has_own  # noqa: PLW0603 - of this process
    status, headers, body = "200 OK", [("Content-Type", "text/plain")], b"alive\n"
    if has_own is not False:
        with contextlib.nullcontext() if has_own else silence():
            answered = asked(request, environ)
        code = int(answered[0].split()[0])
        if code < 500:
            has_own = code < 300
        if has_own or code >= 500:
            status, headers, body = answered
    start_response(status, headers)
    return [body]


def asked(request: Request, environ: Environ) -> tuple[str, list[tuple[str, str]], bytes]:
    """Return status, headers and body of the project's answer."""
    status: str = ""
    headers: list[tuple[str, str]] = []

    def start_response(answered: str, its_headers: list[tuple[str, str]], *_: object) -> None:
        nonlocal status, headers
        status, headers = answered, its_headers

    answer = followed(request, acceptable(environ), start_response)
    body = b"".join(answer)
    if close := getattr(answer, "close", None):
        close()
    return status, headers, body


def acceptable(environ: Environ) -> Environ:
    """Return the request with a Host that the project accepts, and over https, which it may insist on."""
    environ = {**environ, "wsgi.url_scheme": "https"}
    if settings.configured:
        names = [name.lstrip(".") for name in settings.ALLOWED_HOSTS if "*" not in name]
        environ["HTTP_HOST"] = names[0] if names else "localhost"
        if settings.SECURE_PROXY_SSL_HEADER:
            header, value = settings.SECURE_PROXY_SSL_HEADER
            environ[header] = value
    return environ


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Write no log and send no mail: both go through logging."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        # Not what it was before: with threads, that may be another health check's silence.
        logging.disable(LEVEL)


sys.excepthook = uncaught
served = project()
# What the project itself has disabled
LEVEL = logging.root.manager.disable
# After the import: the project's handlers hold the same two objects.
noting(sys.stderr)
noting(sys.stdout)
got_request_exception.connect(note_exception, weak=False)
stack_warm_up.warm_up()
growth = stack_memory.Growth()
