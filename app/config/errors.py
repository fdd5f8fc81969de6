"""The page for errors that a view did not catch."""

import sys

from django.db import OperationalError
from django.http import HttpRequest, HttpResponse
from django.views.defaults import server_error


def unavailable_or_error(request: HttpRequest) -> HttpResponse:
    """Return 503 while the database is locked or unavailable, else Django's own 500.

    Both are logged with a traceback. A client may repeat a request that got a 503.
    """
    problem = sys.exception()
    # For SQLite a missing table is also an OperationalError; repeating the request does not help there.
    if isinstance(problem, OperationalError) and "no such" not in str(problem):
        text = "The database is busy or unavailable. Please try again in a few seconds.\n"
        return HttpResponse(text, status=503, headers={"Retry-After": "5"}, content_type="text/plain")
    return server_error(request)
