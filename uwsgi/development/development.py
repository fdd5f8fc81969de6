"""What `make dev` serves: the project, its static files from the source, templates reloaded on change.

An error at import is shown on the page instead of stopping the workers.
"""

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import Any

from django.conf import settings
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.signals import request_started
from django.http import HttpRequest, HttpResponseBase
from django.template import autoreload

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class FromSource(StaticFilesHandler):
    """Serves static files as the finders see them, and makes the browser revalidate every time."""

    def serve(self, request: HttpRequest) -> HttpResponseBase:
        """Return the file."""
        answer: HttpResponseBase = super().serve(request)
        answer["Cache-Control"] = "no-cache"
        return answer


def project() -> Application:
    """Return the project's own application."""
    module, _, name = os.environ["PROJECT_MODULE"].partition(":")
    found: Application = getattr(importlib.import_module(module), name or "application")
    return found


def developed(served: Application) -> Application:
    """Return the application with the features that runserver would add."""
    if not settings.DEBUG:
        print(
            'DEBUG is off in your settings; DEBUG = os.environ.get("DJANGO_DEBUG") == "1" turns it on', file=sys.stderr
        )
    # Django caches compiled templates, even with DEBUG; runserver's watcher, which would drop them, does not run here.
    request_started.connect(lambda **_: autoreload.reset_loaders(), weak=False)
    return shown(FromSource(served) if "django.contrib.staticfiles" in settings.INSTALLED_APPS else served)


def shown(served: Application) -> Application:
    """Return an application that shows its own failure as a page, for example when urls.py does not import."""

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        try:
            return served(environ, start_response)
        except Exception:  # the project's own code can raise anything
            traceback.print_exc()
            return failure(traceback.format_exc())(environ, start_response)

    return application


def failure(text: str) -> Application:
    """Return an application that shows why the project does not load."""

    def application(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("500 Internal Server Error", [("Content-Type", "text/plain; charset=utf-8")])
        return [text.encode(), b"\nYour project does not load. Save a fix, then reload this page.\n"]

    return application


try:
    application = developed(project())
except (Exception, SystemExit):  # the project's own code can raise anything
    traceback.print_exc()
    application = failure(traceback.format_exc())
