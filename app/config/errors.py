"""The page for what a view did not catch."""

import sys

from django.db import OperationalError
from django.http import HttpRequest, HttpResponse
from django.views.defaults import server_error


def unavailable_or_error(request: HttpRequest) -> HttpResponse:
    """Return 503 while the database is locked or away, else Django's own 500.

    Both are in the log with their traceback; a client may repeat the first.
    """
    problem = sys.exception()
    # SQLite calls a missing table an OperationalError, too; repeating does not help there.
    if isinstance(problem, OperationalError) and "no such" not in str(problem):
        text = "The database is busy or away. Please try again in a few seconds.\n"
        return HttpResponse(text, status=503, headers={"Retry-After": "5"}, content_type="text/plain")
    return server_error(request)
