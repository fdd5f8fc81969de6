"""Runs in uWSGI's master once the project is loaded, before it forks (hook-post-app in uwsgi.ini).

What the first request would load is loaded once instead of once in each worker, and shared by all.
"""

import gc
import traceback

from django.conf import settings
from django.db import connections
from django.template import engines
from django.urls import get_resolver


def load() -> None:
    """Load what Django leaves to the first request: the URLconf, so all views, and the template engines."""
    try:
        # Asking for any of its addresses reads all of it.
        assert get_resolver().reverse_dict is not None
        engines.all()
    except (Exception, SystemExit):  # the project's own code; the request that needs it will fail as it would have
        traceback.print_exc()


# A callable without Django is none of our business.
if settings.configured:
    load()
    # A query at import has opened one, and workers that share it would read each other's answers.
    connections.close_all()
    # The collector writes into every object it looks at, so that each worker would soon have its own copy.
    gc.collect()
    gc.freeze()
