"""What a worker knows of the project as it runs: asked by `healthcheck.py --look`, for `make up` and `make doctor`."""

import json
import os
import re
from pathlib import Path

import stack_checks
from django.apps import apps
from django.conf import settings
from django.core.checks import ERROR, WARNING
from django.core.checks.registry import registry
from django.db import DatabaseError, close_old_connections, connection

# Those of Django's own checks of which ours say more, and W004, HSTS, which nginx sends over https
LEFT_OUT = {"security.W004", "security.W009", "security.W018", "security.W020"}
# Tables that Django fills, or that a project without users leaves empty
OF_THE_FRAMEWORK = re.compile(r"django\.contrib\.(?!auth)|django\.contrib\.auth\.\w+\.(Permission|Group)$")


def look() -> bytes:
    """Return, as JSON, what the checks find, the database's file, whether it is empty, and which cookies need https."""
    if not settings.configured or not apps.ready:
        return json.dumps({"findings": [], "empty": False}).encode()
    try:
        secure = [name for name in ("SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE") if getattr(settings, name)]
        found = {"findings": findings(), "empty": is_empty(), "database": database_file(), "secure_cookies": secure}
        return json.dumps(found).encode()
    finally:
        close_old_connections()


def findings() -> list[tuple[str, str]]:
    """Return a word and a sentence for each finding; the word is breaks, unsafe or could."""
    found = [message for message in stack_checks.stack() if not message.is_silenced()]
    return [*((word(message.level), str(message.msg)) for message in found), *djangos_own()]


def word(level: int) -> str:
    """Return the word for a level of Django's checks."""
    if level >= ERROR:
        return "breaks"
    return "unsafe" if level >= WARNING else "could"


def djangos_own() -> list[tuple[str, str]]:
    """Return what only `manage.py check --deploy` finds, in one line.

    None of it stops a deploy: Django 6.1 calls it an error that a new project prints its mail to the console.
    """
    if os.environ.get("UWSGI_MODULE") == "development":
        return []
    found = [message for check in registry.deployment_checks for message in check(app_configs=None)]
    names = sorted({str(message.id) for message in found if not message.is_silenced()} - LEFT_OUT)
    if not names:
        return []
    return [("could", f'Django: {", ".join(names)}. To read them: make manage CMD="check --deploy"')]


def database_file() -> str:
    """Return the file of the default database if it is SQLite, nothing if it is another."""
    name = str(connection.settings_dict.get("NAME", ""))
    return str(Path(name).resolve()) if connection.vendor == "sqlite" and name.startswith("/") else ""


def is_empty() -> bool:
    """Return whether no table of the project's own has a row, and none of users."""
    if connection.vendor == "unknown":
        return False
    try:
        tables = set(connection.introspection.table_names())
        models = [model for model in apps.get_models() if model._meta.managed and model._meta.db_table in tables]
        own = [model for model in models if not OF_THE_FRAMEWORK.match(f"{model.__module__}.{model.__name__}")]
        return bool(own) and not any(model._base_manager.exists() for model in own)
    except DatabaseError:
        return False
