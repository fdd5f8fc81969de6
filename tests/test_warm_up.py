"""What uWSGI's master loads before it forks is loaded once, is shared, and leaves nothing open."""

from __future__ import annotations

import json

import pytest

from tests.support.stack import Stack

WARM_UP = """
import gc, json, os, sys
sys.path[:0] = ["/app", "/usr/local/lib/uwsgi/project"]
os.environ["DJANGO_SETTINGS_MODULE"] = "probe.settings"
import django
django.setup()
from django.conf import settings
from django.db import connection
connection.ensure_connection()
settings.ROOT_URLCONF = sys.argv[1]
from stack_warm_up import warm_up
warm_up()
print(json.dumps({"open": connection.connection is not None, "frozen": gc.get_freeze_count()}))
"""


@pytest.mark.one_transport
def test_views_are_loaded_by_the_master_alone(stack: Stack) -> None:
    """A worker that loads them by itself keeps a copy of its own, and its first visitor waits for it."""
    result = stack.get("/echo").json()
    assert result["loaded_by"] == 1
    assert result["pid"] != 1
    assert result["frozen"] > 10_000


@pytest.mark.one_transport
@pytest.mark.parametrize("urlconf", ["probe.urls", "no.such.module"])
def test_a_connection_that_import_has_opened_is_not_handed_to_the_workers(stack: Stack, urlconf: str) -> None:
    """Two workers on one connection would read each other's answers. Nor does a broken URLconf end the master."""
    last = stack.exec("uwsgi", "python", "-c", WARM_UP, urlconf).splitlines()
    result = json.loads(next(line for line in last if line.startswith("{")))
    assert result["open"] is False
    assert result["frozen"] > 10_000
    assert any("ModuleNotFoundError" in line for line in last) == (urlconf != "probe.urls")
