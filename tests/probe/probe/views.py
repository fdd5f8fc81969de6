"""Views that report what reached Django, or misbehave on demand."""

import gc
import hashlib
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.http import FileResponse, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.middleware.csrf import get_token
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.gzip import gzip_page
from django.views.decorators.http import condition

from probe.private_files import private_file
from probe.version import VERSION

CHUNK = 65_536
LOADED_BY = os.getpid()
LEAKED: list[bytes] = []
# What Sentry and others do at import: a thread, and a hook that sees to it after a fork
FORKED_AS: list[int] = []
THREAD = threading.Thread(target=threading.Event().wait, daemon=True)
THREAD.start()
os.register_at_fork(after_in_child=lambda: FORKED_AS.append(os.getpid()))
OWN_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self)",
    "Cross-Origin-Opener-Policy": "unsafe-none",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Permitted-Cross-Domain-Policies": "master-only",
    "Content-Security-Policy": "default-src 'self'; frame-ancestors https://partner.example",
}


@csrf_exempt
def echo(request: HttpRequest) -> JsonResponse:
    """Return what Django knows of this request, and the checksum of its body."""
    import uwsgi  # noqa: PLC0415  exists only inside a worker, while manage.py imports this file outside of one

    checksum, length = hashlib.sha256(), 0
    while chunk := request.read(CHUNK):
        checksum.update(chunk)
        length += len(chunk)
    return JsonResponse(
        {
            "method": request.method,
            "path": request.path,
            "query": request.META["QUERY_STRING"],
            "host": request.get_host(),
            "scheme": request.scheme,
            "url": request.build_absolute_uri(),
            "meta": {key: value for key, value in request.META.items() if isinstance(value, str)},
            "length": length,
            "sha256": checksum.hexdigest(),
            "container": socket.gethostname(),
            "worker": uwsgi.worker_id(),
            "pid": os.getpid(),
            "loaded_by": LOADED_BY,
            "frozen": gc.get_freeze_count(),
        }
    )


def form(request: HttpRequest) -> HttpResponse:
    """Return a token for a form, or accept one."""
    return HttpResponse("accepted" if request.method == "POST" else get_token(request))


@csrf_exempt
def unread(request: HttpRequest) -> HttpResponse:
    """Refuse without having read the body."""
    return HttpResponse("refused unread", status=403)


@csrf_exempt
def sleep(request: HttpRequest, milliseconds: int) -> HttpResponse:
    """Answer after a while."""
    time.sleep(milliseconds / 1000)
    return HttpResponse("slept")


def status(request: HttpRequest, code: int) -> HttpResponse:
    """Answer with a status of one's own."""
    return HttpResponse(f"the project's own {code}", status=code)


def headers(request: HttpRequest, size: int) -> HttpResponse:
    """Answer with `size` bytes of headers."""
    return HttpResponse("many headers", headers={f"X-Fill-{number}": "x" * 1000 for number in range(size // 1000)})


def body(request: HttpRequest, size: int) -> HttpResponse:
    """Answer with `size` bytes."""
    return HttpResponse(b"x" * size, content_type="application/octet-stream")


@condition(etag_func=lambda request, size, content_type: f'"{size}"')
def typed(request: HttpRequest, size: int, content_type: str) -> HttpResponse:
    """Answer with `size` bytes of text, of any type, with an ETag."""
    headers = {"Content-Encoding": "identity"} if "identity" in request.GET else {}
    return HttpResponse(("Text repeats itself. " * size)[:size], content_type=content_type, headers=headers)


@gzip_page
def packed(request: HttpRequest) -> HttpResponse:
    """Answer with text that Django compresses."""
    return HttpResponse("Text repeats itself. " * 200)


def file(request: HttpRequest, megabytes: int) -> FileResponse:
    """Answer with a file."""
    zeros = tempfile.TemporaryFile()  # noqa: SIM115  FileResponse closes it
    zeros.truncate(megabytes << 20)
    return FileResponse(zeros, content_type="application/octet-stream")


def events(request: HttpRequest, count: int) -> StreamingHttpResponse:
    """Send events, a fifth of a second apart."""

    def each() -> Iterator[str]:
        for number in range(count):
            yield f"data: {number}\n\n"
            time.sleep(0.2)

    headers = {"X-Accel-Buffering": "no"} if "unbuffered" in request.GET else {}
    return StreamingHttpResponse(each(), content_type="text/event-stream", headers=headers)


@csrf_exempt
def private(request: HttpRequest, name: str) -> HttpResponseBase:
    """Keep a private file, or send it to those who know the password."""
    if request.method == "POST":
        Path(settings.PRIVATE_ROOT, name).write_bytes(request.body)
        return HttpResponse("kept")
    if "password" not in request.GET:
        return HttpResponse("not for you", status=403)
    response = private_file(request, name, as_attachment="download" in request.GET)
    # As Django's middleware sets them
    response["X-Frame-Options"] = "DENY"
    response["X-Content-Type-Options"] = "nosniff"
    response["Referrer-Policy"] = "same-origin"
    return response


@csrf_exempt
def form_files(request: HttpRequest) -> JsonResponse:
    """Return the checksum of each file of a form."""
    checksums = {}
    for name, sent in request.FILES.items():
        checksum = hashlib.sha256()
        for chunk in sent.chunks():
            checksum.update(chunk)
        checksums[name] = checksum.hexdigest()
    return JsonResponse(checksums)


def version(request: HttpRequest) -> HttpResponse:
    """Answer with the version of this release."""
    return HttpResponse(VERSION)


def allocate(request: HttpRequest, megabytes: int) -> HttpResponse:
    """Take memory, every page of it."""
    return HttpResponse(str(len(b"x" * (megabytes << 20))))


def leak(request: HttpRequest, megabytes: int) -> HttpResponse:
    """Take memory, and keep it."""
    LEAKED.append(b"x" * (megabytes << 20))
    return HttpResponse(str(os.getpid()))


def forked(request: HttpRequest) -> JsonResponse:
    """Return what a fork made of a thread and a hook, whether threads run, and the options that Sentry looks for."""
    import uwsgi  # noqa: PLC0415  exists only inside a worker

    ran: list[str] = []
    thread = threading.Thread(target=ran.append, args=("ran",))
    thread.start()
    thread.join(5)
    options = ("enable-threads", "py-call-uwsgi-fork-hooks")
    return JsonResponse(
        {
            "hook": os.getpid() in FORKED_AS,
            "thread of the master": THREAD.is_alive(),
            "thread": ran,
            "options": [bool(uwsgi.opt.get(name)) for name in options],
        }
    )


def kill(request: HttpRequest) -> HttpResponse:
    """Kill the worker that has this request."""
    os.kill(os.getpid(), signal.SIGKILL)
    return HttpResponse("unreachable")


def fail(request: HttpRequest) -> HttpResponse:
    """Raise what no project catches."""
    raise RuntimeError("a secret of the project")


@csrf_exempt
def upload(request: HttpRequest, name: str) -> HttpResponse:
    """Keep a file as an upload, under an address that Django gives it."""
    return HttpResponse(default_storage.url(default_storage.save(name, ContentFile(request.body))))


def media(request: HttpRequest, name: str) -> HttpResponse:
    """Answer for an upload that is not on the disk."""
    return HttpResponse(f"the project's own {name}")


def own_headers(request: HttpRequest) -> HttpResponse:
    """Answer with headers that nginx would add otherwise."""
    return HttpResponse("mine", headers=OWN_HEADERS)
