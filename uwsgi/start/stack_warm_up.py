"""Runs in uWSGI's master once the project is loaded, before it forks (stack_application.py).

What the first request would load is loaded once in the master instead of once per worker, and shared by all.
"""

import gc
import traceback

from django.conf import settings
from django.db import connections
from django.template import engines
from django.urls import get_resolver


def load() -> None:
    """Load what Django would load at the first request: the URLconf with all views, and the template engines."""
    try:
        # Reading reverse_dict loads the whole URLconf.
        assert get_resolver().reverse_dict is not None
        engines.all()
    except (Exception, SystemExit):  # the project's own code; the request that needs it will fail as before
        traceback.print_exc()


def warm_up() -> None:
    """Load, and leave nothing open or in motion that workers would share."""
    if not settings.configured:
        # Not a Django project
        return
    load()
    # A query at import opens a connection, and workers that share it would read each other's results.
    connections.close_all()
    # The collector writes to every object it visits, so each worker would soon own a copy.
    gc.collect()
    gc.freeze()
