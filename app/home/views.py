"""A page that shows the path of its own request, and the same as JSON."""

import os
import socket
from typing import TypedDict

import django
from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.templatetags.static import static
from django.views.decorators.cache import cache_control, never_cache
from django.views.decorators.http import require_safe

from home.stack import state

try:
    import uwsgi
except ImportError:  # it exists only inside a uWSGI worker, not under manage.py
    uwsgi = None


class Way(TypedDict):
    """The path of one request, in order."""

    client: str
    scheme: str
    host: str
    request_id: str
    transport: str
    container: str
    worker: int
    pid: int
    uwsgi: str
    django: str


def way_of(request: HttpRequest) -> Way:
    """Return what nginx, uWSGI and Django know about this request."""
    return {
        "client": request.META.get("REMOTE_ADDR", ""),
        "scheme": request.scheme or "",
        "host": request.get_host(),
        "request_id": request.META.get("HTTP_X_REQUEST_ID", ""),
        # Set by nginx, next to its uwsgi_pass; missing without nginx in front.
        "transport": request.META.get("TRANSPORT", "none: HTTP without nginx"),
        "container": socket.gethostname(),
        "worker": uwsgi.worker_id() if uwsgi else 0,
        "pid": os.getpid(),
        "uwsgi": uwsgi.version.decode() if uwsgi else "not running",
        "django": django.get_version(),
    }


@require_safe
@never_cache
def page(request: HttpRequest) -> HttpResponse:
    """Return the home page."""
    return render(request, "home/index.html", {"way": way_of(request), "live": settings.STACK_PAGE})


@require_safe
@cache_control(public=True, max_age=86_400)
def favicon(request: HttpRequest) -> HttpResponse:
    """Redirect to the icon: browsers request this path on pages that name no icon, such as the admin."""
    return redirect(static("home/icon.svg"))


@require_safe
@never_cache
def api_stack(request: HttpRequest) -> JsonResponse:
    """Return the state of the container that handles this request. Raises Http404 unless STACK_PAGE is on."""
    if not settings.STACK_PAGE:
        raise Http404
    return JsonResponse(state(request))


@require_safe
@never_cache
def api_request(request: HttpRequest) -> JsonResponse:
    """Return the path of this request as JSON."""
    return JsonResponse(way_of(request))
