"""Settings that break a project here, or are unsafe, are found by Django's system checks, as they are loaded."""

from __future__ import annotations

import functools
import json
from typing import Any

import pytest

from tests.support.stack import Stack, run

# Of many settings, one after the other, each in a process of its own: what the checks find
CHECK = """
import json, os, sys
sys.path.insert(0, "/usr/local/lib/uwsgi/project")
import django, stack_checks
from django.conf import settings
from django.core.checks import run_checks

def check(given):
    os.environ |= {"UWSGI_PROCESSES": "2", "DJANGO_ALLOWED_HOSTS": "shop.example,.shop.test,localhost"}
    os.environ.pop("UWSGI_MODULE", None)
    os.environ |= given.pop("environment", {})
    settings.configure(**{
        "SECRET_KEY": "0123456789" * 5, "ALLOWED_HOSTS": ["shop.example", ".shop.test", "localhost"],
        "MIDDLEWARE": ["django.middleware.common.CommonMiddleware"],
        "INSTALLED_APPS": ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions",
                           "django.contrib.staticfiles"],
        "DATABASES": {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "/data/db.sqlite3"}},
        "STATIC_URL": "/static/", **given,
    })
    django.setup()
    return [[type(one).__name__, one.id, one.msg] for one in run_checks(tags=["stack"]) if not one.is_silenced()]

for given in json.loads(sys.argv[1]):
    if os.fork() == 0:
        print(json.dumps(check(given)), flush=True)
        os._exit(0)
    os.wait()
"""
Said = list[list[str]]


@functools.cache
def checked(container: str) -> tuple[list[Said], list[Said]]:
    """Return what the checks find in each of CORRECT, and in each of WRONG."""
    wrong = [settings for settings, *_ in WRONG]
    done = run("docker", "exec", container, "python", "-c", CHECK, json.dumps([*CORRECT, *wrong]))
    message = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(message) == len(CORRECT) + len(WRONG), done.stderr
    return message[: len(CORRECT)], message[len(CORRECT) :]


def sqlite(name: str) -> dict[str, Any]:
    """Return DATABASES with this file."""
    return {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": name}}


def cache(backend: str, location: str = "") -> dict[str, Any]:
    """Return CACHES with this backend."""
    return {"default": {"BACKEND": f"django.core.cache.backends.{backend}", "LOCATION": location}}


def log_to(file: str) -> dict[str, Any]:
    """Return LOGGING to a file that is opened at its first line."""
    return {"version": 1, "handlers": {"f": {"class": "logging.FileHandler", "filename": file, "delay": True}}}


SMTP = {"EMAIL_BACKEND": "django.core.mail.backends.smtp.EmailBackend"}
S3 = {"default": {"BACKEND": "storages.backends.s3.S3Storage"}, "staticfiles": {"BACKEND": "none"}}
CORRECT: list[dict[str, Any]] = [
    {},
    {"ALLOWED_HOSTS": ["shop.example", ".shop.test", "localhost", "127.0.0.1"]},
    {"ALLOWED_HOSTS": ["shop.example", ".shop.test"]},
    # An API that never asks for the Host
    {"ALLOWED_HOSTS": [], "MIDDLEWARE": []},
    {"SECURE_PROXY_SSL_HEADER": ["HTTP_X_FORWARDED_PROTO", "https"]},
    {"CSRF_TRUSTED_ORIGINS": ["https://shop.example", "https://*.shop.test"]},
    {"MEDIA_ROOT": "/data/media", "MEDIA_URL": "/media/"},
    {"MEDIA_ROOT": "/data/protected", "MEDIA_URL": "/protected/"},
    {"STATIC_URL": "https://cdn.example/static/"},
    {"STATIC_URL": "/assets/", "MIDDLEWARE": ["whitenoise.middleware.WhiteNoiseMiddleware"]},
    {"CACHES": cache("redis.RedisCache", "redis://cache")},
    {"CACHES": cache("filebased.FileBasedCache", "/tmp/cache")},
    {"SESSION_ENGINE": "django.contrib.sessions.backends.signed_cookies"},
    {"LOGGING": log_to("/data/log/shop.log")},
    {"LOGGING": log_to("/dev/stderr")},
    # A container on network `inside`
    {**SMTP, "EMAIL_HOST": "mail"},
    {**SMTP, "EMAIL_HOST": "10.0.0.5"},
    # Django's defaults
    SMTP,
    {"MAILERS": {"default": {"BACKEND": "django.core.mail.backends.console.EmailBackend"}}},
    # Of a kind that no check knows
    {"MAILERS": "none", "STORAGES": None, "CACHES": {"default": None}},
    # Under `make dev` much is otherwise.
    {"DEBUG": True, "DATABASES": sqlite("/app/none/db.sqlite3"), "environment": {"UWSGI_MODULE": "development"}},
    {"DEBUG": True, "SILENCED_SYSTEM_CHECKS": ["stack.debug"]},
]


@pytest.mark.one_transport
def test_correct_projects_are_left_in_peace(stack: Stack) -> None:
    message, _ = checked(stack.container("uwsgi")["Id"])
    found = zip(CORRECT, message, strict=True)
    assert [(settings, messages) for settings, messages in found if messages] == []


WRONG: list[tuple[dict[str, Any], str, str, str]] = [
    ({"ALLOWED_HOSTS": []}, "Error", "stack.hosts", 'ALLOWED_HOSTS = os.environ["DJANGO_ALLOWED_HOSTS"].split(",")'),
    ({"ALLOWED_HOSTS": ["a.example"]}, "Error", "stack.hosts", "in .env: DJANGO_ALLOWED_HOSTS=a.example,localhost"),
    ({"ALLOWED_HOSTS": ["shop.example"]}, "Info", "stack.hosts", "nginx admits .shop.test (DJANGO_ALLOWED_HOSTS"),
    ({"ALLOWED_HOSTS": ["*"]}, "Info", "stack.hosts", '"*"'),
    (
        {"ALLOWED_HOSTS": ["shop.example", ".shop.test", "localhost", "new.example"]},
        "Info",
        "stack.hosts",
        "new.example, which nginx refuses",
    ),
    ({"DEBUG": True}, "Warning", "stack.debug", 'DEBUG = os.environ.get("DJANGO_DEBUG") == "1"'),
    ({"DEBUG": True, "environment": {"DJANGO_DEBUG": "1"}}, "Warning", "stack.debug", "in .env: DJANGO_DEBUG=0"),
    (
        {"SECRET_KEY": "django-insecure-" + "k" * 50},  # pragma: allowlist secret
        "Warning",
        "stack.secret_key",
        "DJANGO_SECRET_KEY_FILE",
    ),
    ({"SECRET_KEY": "changeme"}, "Warning", "stack.secret_key", "placeholder"),  # pragma: allowlist secret
    (
        {"SECURE_PROXY_SSL_HEADER": ["HTTP_X_FORWARDED_SSL", "on"]},
        "Warning",
        "stack.proxy",
        "any client can send",
    ),
    ({"CSRF_TRUSTED_ORIGINS": ["https://*"]}, "Warning", "stack.csrf", "any site may post"),
    ({"STATIC_URL": "/assets/"}, "Warning", "stack.static", 'STATIC_URL = "/static/"'),
    ({"MEDIA_ROOT": "/srv/uploads"}, "Warning", "stack.media", "/srv/uploads"),
    ({"MEDIA_ROOT": "/data/media", "MEDIA_URL": "/files/"}, "Warning", "stack.media", "MEDIA_URL = '/media/'"),
    ({"DATABASES": sqlite("/tmp/db.sqlite3")}, "Warning", "stack.databases", "lost with the container"),
    ({"DATABASES": sqlite(":memory:")}, "Warning", "stack.databases", "in memory"),
    (
        {"DATABASES": {"default": {"ENGINE": "django.db.backends.dummy", "HOST": "localhost"}}},
        "Error",
        "stack.databases",
        "the container itself",
    ),
    ({"CACHES": cache("filebased.FileBasedCache", "/var/cache/shop")}, "Warning", "stack.caches", "cannot be written"),
    ({"CACHES": cache("locmem.LocMemCache")}, "Info", "stack.caches", "each worker has its own"),
    (
        {"SESSION_ENGINE": "django.contrib.sessions.backends.cache"},
        "Warning",
        "stack.sessions",
        "logins come and go",
    ),
    ({"SESSION_ENGINE": "django.contrib.sessions.backends.file"}, "Warning", "stack.sessions", "/data/sessions"),
    ({"LOGGING": log_to("/tmp/shop.log")}, "Warning", "stack.logging", "/tmp/shop.log"),
    ({**SMTP, "EMAIL_HOST": "smtp.mail.example"}, "Warning", "stack.egress", "overrides/egress.yaml"),
    (
        {"MAILERS": {"default": {"BACKEND": SMTP["EMAIL_BACKEND"], "OPTIONS": {"host": "smtp.mail.example"}}}},
        "Warning",
        "stack.egress",
        "MAILERS default",
    ),
    ({"environment": {"SENTRY_DSN": "https://key@sentry.example/1"}}, "Warning", "stack.egress", "SENTRY_DSN"),
    ({"STORAGES": S3}, "Warning", "stack.egress", "STORAGES default"),
]


@pytest.mark.one_transport
@pytest.mark.parametrize("number", range(len(WRONG)), ids=[str(one[0])[:60] for one in WRONG])
def test_each_setting_that_is_wrong_here_is_found(stack: Stack, number: int) -> None:
    _, level, name, text = WRONG[number]
    message = checked(stack.container("uwsgi")["Id"])[1][number]
    assert [(one, identifier) for one, identifier, _ in message] == [(level, name)], message
    assert text in message[0][2]
