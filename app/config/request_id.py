"""The id that nginx gives each request, in every line that is logged while it is answered.

To copy it, name the filter in LOGGING; importing it is all it takes.
"""

import logging
from contextvars import ContextVar
from typing import Any

from django.core.signals import request_finished, request_started

current: ContextVar[str] = ContextVar("request_id", default="-")


class RequestIdFilter(logging.Filter):
    """Puts the id into each record, `-` outside of a request."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass."""
        record.request_id = current.get()
        return True


# Not a middleware: Django logs a 404 or a 500 after the last of them has ended.
def begin(environ: dict[str, Any], **_: object) -> None:
    """Note the id of the request that begins."""
    current.set(environ.get("HTTP_X_REQUEST_ID", "-"))


def end(**_: object) -> None:
    """Forget it."""
    current.set("-")


request_started.connect(begin, dispatch_uid="request_id")
request_finished.connect(end, dispatch_uid="request_id")
