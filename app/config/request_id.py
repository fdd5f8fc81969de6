"""Adds the id that nginx gives each request to every line logged while the request is handled.

To use it in your project, copy this file and name the filter in LOGGING, as settings.py does; nothing else is needed.
"""

import logging
from contextvars import ContextVar
from typing import Any

from django.core.signals import request_finished, request_started

current: ContextVar[str] = ContextVar("request_id", default="-")


class RequestIdFilter(logging.Filter):
    """Adds the id to each record; `-` outside of a request."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the id, and keep every record."""
        record.request_id = current.get()
        return True


# Not a middleware: Django logs a 404 or a 500 after all middleware has returned.
def begin(environ: dict[str, Any], **_: object) -> None:
    """Store the id when a request starts."""
    current.set(environ.get("HTTP_X_REQUEST_ID", "-"))


def end(**_: object) -> None:
    """Clear the id when the request has ended."""
    current.set("-")


request_started.connect(begin, dispatch_uid="request_id")
request_finished.connect(end, dispatch_uid="request_id")
