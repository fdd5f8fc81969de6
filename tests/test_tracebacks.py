"""What a project does not handle is on stderr once, with its request; a health check leaves nothing there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import ops.stack
from ops import logs, trace
from tests.support.stack import Stack, run, wait_until

# A project in one file, called as uWSGI would call it; what it writes and what it answers is printed.
PROJECT = """
import io, json, os, sys
sys.path.insert(0, "/usr/local/lib/uwsgi/project")
given, asked = json.loads(sys.argv[1]), json.loads(sys.argv[2])
from django.conf import settings
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path

def fail(request):
    raise RuntimeError("not handled")

def stream(request):
    def chunks():
        yield b"begun"
        raise RuntimeError("not handled")
    return StreamingHttpResponse(chunks())

def gone(request):
    return HttpResponse("too late", status=503)

views = {"fail": fail, "stream": stream, "own": lambda request: HttpResponse("own"), "gone": gone}
routes = given.pop("routes", {"fail": "fail", "stream": "stream"})
urlpatterns = [path(address, views[name]) for address, name in routes.items()]
shop = sys.modules["shop"] = sys.modules["__main__"]
settings.configure(**{
    "SECRET_KEY": "k" * 50, "ALLOWED_HOSTS": ["shop.example"], "ROOT_URLCONF": "shop", "ADMINS": ["ada@shop.example"],
    "EMAIL_BACKEND": "django.core.mail.backends.locmem.EmailBackend",
    "MIDDLEWARE": ["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware"],
    **given,
})
from django.core import mail
from django.core.wsgi import get_wsgi_application
application = get_wsgi_application()
mail.outbox = []
os.environ["UWSGI_MODULE"] = "shop:application"
import stack_application

answers = []
for variables in asked:
    answer = stack_application.application(
        {"REQUEST_METHOD": "GET", "SERVER_NAME": "", "SERVER_PORT": "80", "HTTP_HOST": "shop.example",
         "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(), **variables},
        lambda status, headers: answers.append(status),
    )
    try:
        answers[-1] += " " + b"".join(answer).decode()
    except Exception:  # as uWSGI does
        sys.excepthook(*sys.exc_info())
    if hasattr(answer, "close"):
        answer.close()
print(json.dumps({"answers": answers, "mails": len(mail.outbox)}))
"""
CONSOLE = {"c": {"class": "logging.StreamHandler"}}
LOGGINGS: dict[str, dict[str, Any]] = {
    "Django's own, with DEBUG off": {},
    "none": {"LOGGING_CONFIG": None},
    "existing loggers disabled": {
        "LOGGING": {"version": 1, "disable_existing_loggers": True, "handlers": CONSOLE, "root": {"handlers": ["c"]}}
    },
    "mails only": {
        "LOGGING": {
            "version": 1,
            "handlers": {"m": {"class": "django.utils.log.AdminEmailHandler"}},
            "loggers": {"django": {"handlers": ["m"], "propagate": False}},
        }
    },
    "to the console": {
        "LOGGING": {"version": 1, "disable_existing_loggers": False, "handlers": CONSOLE, "root": {"handlers": ["c"]}}
    },
}

# Without any configuration, Python's logging writes warnings to stderr.
WRITES = ("none", "to the console")


@dataclass(frozen=True)
class Ran:
    """What a project answered, mailed and wrote."""

    answers: list[str]
    mails: int
    written: str


def ran(stack: Stack, asked: list[dict[str, str]], then: str = "", **settings: Any) -> Ran:
    """Call the project with these settings, request by request, and run what follows in the same process."""
    container = stack.container("uwsgi")["Id"]
    done = run("docker", "exec", container, "python", "-c", PROJECT + then, json.dumps(settings), json.dumps(asked))
    assert done.returncode == 0, done.stderr
    return Ran(**json.loads(done.stdout.splitlines()[-1]), written=done.stderr)


def get(path: str, **variables: str) -> dict[str, str]:
    """Return a request as nginx sends it."""
    return {"PATH_INFO": path, "REQUEST_URI": path, "HTTP_X_REQUEST_ID": "id-of-this-one", **variables}


@pytest.mark.one_transport
@pytest.mark.parametrize("name", LOGGINGS)
def test_traceback_is_written_once_whatever_the_project_logs(stack: Stack, name: str) -> None:
    seen = ran(stack, [get("/fail"), get("/missing")], **LOGGINGS[name])
    assert seen.answers[0].startswith("500 ")
    assert seen.written.count("Traceback (most recent call last)") == 1
    assert seen.written.count("RuntimeError: not handled") == 1
    # What is written without us is followed by uWSGI's line, which has the id.
    assert ("request id-of-this-one: GET /fail\n" in seen.written) == (name not in WRITES)


@pytest.mark.one_transport
def test_what_fails_while_it_is_streamed_is_written_with_its_request(stack: Stack) -> None:
    seen = ran(stack, [get("/stream")])
    assert seen.written.count("request id-of-this-one: GET /stream\nTraceback (most recent call last)") == 1
    assert seen.written.count("RuntimeError: not handled") == 1


def test_make_logs_and_make_trace_have_the_traceback(stack: Stack) -> None:
    """The probe has no LOGGING: Django's own writes nothing."""
    answer = stack.get("/fail")
    assert answer.status_code == 500
    identifier = answer.headers["X-Request-ID"]

    def logged() -> list[str]:
        lines = trace.log(stack.container("uwsgi")["Id"])
        found = [text for _, text in trace.about(identifier, lines)]
        return found if found and found[-1].startswith("GET /fail 500 in ") else []

    found = wait_until(logged, "uWSGI's line of the request in the log")
    assert found[0] == f"request {identifier}: GET /fail"
    assert found.count("RuntimeError: a secret of the project") == 1


def test_trace_finds_a_traceback_that_the_project_logged_without_the_id() -> None:
    texts = [
        "GET /other 200",
        "ERROR Internal Server Error: /fail",
        "Traceback (most recent call last):",
        '  File "views.py", line 1, in fail',
        "RuntimeError: not handled",
        "GET /fail 500 in 3 ms by worker 1, request id-of-this-one",
        "GET /other 200",
    ]
    lines = [(str(number), text) for number, text in enumerate(texts)]
    assert [text for _, text in trace.about("id-of-this-one", lines)] == texts[1:6]


HEALTH = [get("/healthz", HEALTH_CHECK="1", HTTP_HOST="localhost")] * 3
LOUD = LOGGINGS["to the console"]


@pytest.mark.one_transport
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"SECURE_SSL_REDIRECT": True},
        {"SECURE_SSL_REDIRECT": True, "SECURE_PROXY_SSL_HEADER": ["HTTP_X_FORWARDED_PROTO", "https"]},
        {"ALLOWED_HOSTS": []},
        {"ALLOWED_HOSTS": [".example.com"]},
        {"ALLOWED_HOSTS": ["*"]},
    ],
    ids=str,
)
def test_a_health_check_leaves_nothing_in_a_project_that_has_none(stack: Stack, settings: dict[str, Any]) -> None:
    assert ran(stack, HEALTH, **LOUD, **settings) == Ran(["200 OK alive\n"] * 3, 0, "")
    # The same request from a client is the project's.
    others = ran(stack, [get("/healthz")], **LOUD, **settings)
    assert others.answers[0].startswith(("301", "400", "404"))


@pytest.mark.one_transport
def test_a_health_check_is_the_projects_where_it_answers_or_fails(stack: Stack) -> None:
    own = ran(stack, HEALTH, routes={"healthz": "own"}, SECURE_SSL_REDIRECT=True)
    assert own == Ran(["200 OK own"] * 3, 0, "")
    assert ran(stack, HEALTH, routes={"healthz": "gone"}).answers == ["503 Service Unavailable too late"] * 3
    failing = ran(stack, HEALTH[:1], routes={"healthz": "fail"})
    assert failing.answers[0].startswith("500 ")
    assert failing.written.count("RuntimeError: not handled") == 1


OVERLAPPING = """
import logging
first, second = stack_application.silence(), stack_application.silence()
for step in (first.__enter__, second.__enter__, lambda: first.__exit__(None, None, None)):
    step()
second.__exit__(None, None, None)
assert logging.root.manager.disable == 0, "the project logs nothing any more"
"""


@pytest.mark.one_transport
def test_health_checks_of_two_threads_leave_the_projects_log_on(stack: Stack) -> None:
    ran(stack, HEALTH, then=OVERLAPPING)


@pytest.mark.one_transport
def test_trace_finds_what_a_container_that_is_gone_has_logged(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMPOSE_PROJECT_NAME", stack.project)
    identifier = stack.get("/fail").headers["X-Request-ID"]
    uwsgi = ops.stack.workers()
    for number in range(logs.KEPT + 1):
        (tmp_path / f"19990101-0000{number:02}-shop.log.gz").write_bytes(b"")
    logs.keep(uwsgi, tmp_path)
    assert len([*tmp_path.iterdir()]) == logs.KEPT
    name, text = [*logs.kept(tmp_path)][-1]
    assert uwsgi[0].name in name
    # As after `make down`
    monkeypatch.setattr(ops.stack, "containers", lambda *_: [])
    monkeypatch.setattr(logs, "kept", lambda: [(name, text)])
    trace.trace(identifier)
    assert "RuntimeError: a secret of the project" in capsys.readouterr().out
