"""Answers health checks before any other middleware can refuse them."""

from collections.abc import Callable

from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse

GetResponse = Callable[[HttpRequest], HttpResponse]


def health_middleware(get_response: GetResponse) -> GetResponse:
    """Answer /healthz (this worker is alive) and /readyz (and its database answers).

    Put it first: a probe may use any Host, over plain HTTP, and the host check or the redirect to HTTPS in later
    middleware would make a healthy container look unhealthy.
    """

    def middleware(request: HttpRequest) -> HttpResponse:
        if request.path == "/healthz":
            return HttpResponse("alive\n", content_type="text/plain")
        if request.path == "/readyz":
            return readiness()
        return get_response(request)

    return middleware


def readiness() -> HttpResponse:
    """Return 200 if the database answers a query, else 503."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError as problem:
        return HttpResponse(f"database: {type(problem).__name__}\n", status=503, content_type="text/plain")
    return HttpResponse("ready\n", content_type="text/plain")
