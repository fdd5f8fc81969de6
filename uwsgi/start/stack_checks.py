"""Django system checks of the project's settings, as they are loaded here: what this stack can know of them.

An Error breaks the project here, and stops `make up` and `make deploy`. A Warning is unsafe: data, logins or secrets
get lost, or a part of the site does not work. An Info could be better. Each is silenced by its id in
SILENCED_SYSTEM_CHECKS. Under `make dev`, where much is otherwise, there are none.
"""

import ipaddress
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Info, Warning, register  # noqa: A004 - Django's name
from django.db.models import FileField
from django.http.request import validate_host

DATA = Path("/data")
MEDIA = DATA / "media"
# Folders of a container that end with it
LOST = "is lost with the container, at each deploy"
PLACEHOLDER = re.compile(
    r"django-insecure-|change.?me|your.?secret|replace.?me|(not.?so.?|in)secure|example", re.IGNORECASE
)
# Django's own are 50 characters
SHORT = 32
KEY = 'SECRET_KEY = Path(os.environ["DJANGO_SECRET_KEY_FILE"]).read_text().strip()'
FROM_HOSTS = 'ALLOWED_HOSTS = os.environ["DJANGO_ALLOWED_HOSTS"].split(",")'
EGRESS = "uwsgi cannot reach the internet: add overrides/egress.yaml (docs/bring-your-app.md)"
LOCAL = ("localhost", "127.0.0.1", "[::1]")
ROUTES = Path("/proc/net/route")

Found = Iterator[CheckMessage]


def debug() -> Found:
    """Find DEBUG."""
    if settings.DEBUG:
        in_env = os.environ.get("DJANGO_DEBUG", "0") != "0"
        fix = "in .env: DJANGO_DEBUG=0" if in_env else 'in your settings: DEBUG = os.environ.get("DJANGO_DEBUG") == "1"'
        yield Warning(f"DEBUG is on: an error shows every visitor your code and settings. Set {fix}", id="stack.debug")


def hosts() -> Found:
    """Find host names that nginx passes on and the project refuses, and the other way round."""
    allowed = [*settings.ALLOWED_HOSTS]
    if settings.DEBUG and not allowed:
        allowed = [".localhost", "127.0.0.1", "[::1]"]
    admitted = [name.strip() for name in os.environ.get("DJANGO_ALLOWED_HOSTS", "").split(",") if name.strip()]
    refused = [name for name in admitted if not validate_host(name.removeprefix(".").lower(), allowed)]
    others = [name for name in allowed if name != "*" and name not in admitted]
    asks = any("CommonMiddleware" in name for name in settings.MIDDLEWARE)
    if "*" in allowed:
        yield Info(
            f'ALLOWED_HOSTS has "*"; here nginx refuses other names already. Better: {FROM_HOSTS}', id="stack.hosts"
        )
    elif admitted and refused == admitted and asks:
        fix = f"DJANGO_ALLOWED_HOSTS={','.join([*others, 'localhost'])}" if others else ""
        fix = f"in .env: {fix}" if fix else f"in your settings: {FROM_HOSTS}"
        yield Error(
            f"ALLOWED_HOSTS is {allowed}, and nginx admits {', '.join(admitted)}: every page is a 400. Set {fix}",
            id="stack.hosts",
        )
    elif asks and (public := [name for name in refused if name not in LOCAL]):
        text = f"nginx admits {', '.join(public)} (DJANGO_ALLOWED_HOSTS in .env), and ALLOWED_HOSTS does not: 400"
        yield Info(text, id="stack.hosts")
    elif missing := [name for name in others if not any(covers(name, host) for host in admitted)]:
        text = f"ALLOWED_HOSTS has {', '.join(missing)}, which nginx refuses. In .env: DJANGO_ALLOWED_HOSTS"
        yield Info(text, id="stack.hosts")


def covers(name: str, admitted: str) -> bool:
    """Return whether a name in DJANGO_ALLOWED_HOSTS admits another."""
    return name.removeprefix(".") in LOCAL or validate_host(name.removeprefix("."), [admitted])


def proxy() -> Found:
    """Find a header that any client can send to look like https, and forms that any site may post."""
    header = (settings.SECURE_PROXY_SSL_HEADER or [None])[0]
    if header not in (None, "HTTP_X_FORWARDED_PROTO"):
        yield Warning(
            f"SECURE_PROXY_SSL_HEADER believes {header}, which any client can send. Remove it: nginx sets the scheme",
            id="stack.proxy",
        )
    wide = [origin for origin in settings.CSRF_TRUSTED_ORIGINS if re.fullmatch(r"https?://\*?\.?\*?", origin)]
    if wide:
        yield Warning(f"CSRF_TRUSTED_ORIGINS has {wide[0]}: any site may post your forms", id="stack.csrf")


def static_files() -> Found:
    """Find static files at an address that nginx does not serve."""
    installed = apps.is_installed("django.contrib.staticfiles")
    whitenoise = any("whitenoise" in name.lower() for name in settings.MIDDLEWARE)
    if installed and not whitenoise and elsewhere(settings.STATIC_URL, "/static/"):
        yield Warning(
            f"STATIC_URL is {settings.STATIC_URL!r}, and nginx serves /static/: pages have no styles. "
            'Set in your settings: STATIC_URL = "/static/"',
            id="stack.static",
        )


def elsewhere(address: str | None, ours: str) -> bool:
    """Return whether an address is on this site, but not where nginx serves it."""
    return bool(address) and not urlsplit(str(address)).netloc and not f"/{str(address).lstrip('/')}".startswith(ours)


def uploads() -> Found:
    """Find uploads that cannot be written, or that nginx does not serve."""
    storage = settings.STORAGES.get("default", {}).get("BACKEND", "")
    used = [model for model in apps.get_models() if any(isinstance(field, FileField) for field in model._meta.fields)]
    if not storage.endswith(".FileSystemStorage") or not (used or settings.MEDIA_ROOT):
        return
    if not settings.MEDIA_ROOT:
        text = (
            f"{used[0].__name__} takes uploads, and there is no MEDIA_ROOT: they fail. MEDIA_ROOT = BASE_DIR / 'media'"
        )
        yield Warning(text, id="stack.media")
    elif not kept(settings.MEDIA_ROOT):
        text = f"MEDIA_ROOT {settings.MEDIA_ROOT} cannot be written, or {LOST}. MEDIA_ROOT = BASE_DIR / 'media'"
        yield Warning(text, id="stack.media")
    elif real(settings.MEDIA_ROOT) == MEDIA and elsewhere(settings.MEDIA_URL, "/media/"):
        text = f"MEDIA_URL is {settings.MEDIA_URL!r}, and nginx serves uploads under /media/. MEDIA_URL = '/media/'"
        yield Warning(text, id="stack.media")


def databases() -> Found:
    """Find SQLite in a place that is lost, and a database on the container itself, which has none."""
    for name, database in settings.DATABASES.items():
        engine, file = str(database.get("ENGINE", "")), str(database.get("NAME", ""))
        if engine.endswith(("sqlite3", "spatialite")):
            if ":memory:" in file or "mode=memory" in file:
                yield Warning(f"DATABASES {name} is in memory: each worker has its own", id="stack.databases")
            elif not kept(file.removeprefix("file:").partition("?")[0]):
                yield Warning(
                    f"DATABASES {name}: {file} {LOST}, or cannot be written. Put it next to manage.py, or under /data",
                    id="stack.databases",
                )
        elif database.get("HOST") in ("localhost", "127.0.0.1", "::1"):
            text = f"DATABASES {name} is on {database['HOST']}, which here is the container itself: it has no database"
            yield Error(text, id="stack.databases") if name == "default" else Warning(text, id="stack.databases")


def shared() -> Found:
    """Find sessions and caches that are each worker's own, or lost."""
    backend = str(settings.CACHES.get(settings.SESSION_CACHE_ALIAS, {}).get("BACKEND", ""))
    several = int(os.environ.get("UWSGI_PROCESSES", "1")) > 1
    if settings.SESSION_ENGINE.endswith(".cache") and backend.endswith("LocMemCache") and several:
        yield Warning(
            "sessions are in LocMemCache, and each worker has its own: logins come and go. "
            'SESSION_ENGINE = "django.contrib.sessions.backends.db"',
            id="stack.sessions",
        )
    if settings.SESSION_ENGINE.endswith(".file") and not kept(settings.SESSION_FILE_PATH or "/tmp"):  # noqa: S108
        text = f"a session in a file {LOST}, and other containers do not see it: SESSION_FILE_PATH = '/data/sessions'"
        yield Warning(text, id="stack.sessions")
    for name, cache in settings.CACHES.items():
        location = str(cache.get("LOCATION", ""))
        if str(cache.get("BACKEND", "")).endswith("FileBasedCache") and not writable(location):
            text = f"CACHES {name}: {location} cannot be written here. LOCATION: /tmp/cache, or /data/cache to keep it"
            yield Warning(text, id="stack.caches")
    if settings.is_overridden("CACHES") and several and not settings.SESSION_ENGINE.endswith(".cache"):
        local = [name for name, cache in settings.CACHES.items() if str(cache.get("BACKEND")).endswith("LocMemCache")]
        if local:
            text = f"CACHES {local[0]} is LocMemCache: each worker has its own, so counts and locks in it do not hold"
            yield Info(text, id="stack.caches")


def logs() -> Found:
    """Find log files that no one will see."""
    handlers = settings.LOGGING.get("handlers", {}) if isinstance(settings.LOGGING, dict) else {}
    for name, handler in handlers.items():
        file = str(handler.get("filename", "")) if isinstance(handler, dict) else ""
        if file and not file.startswith("/dev/") and not kept(file):
            text = f"LOGGING handler {name}: {file} {LOST}, or cannot be written. Log to stderr: make logs shows it"
            yield Warning(text, id="stack.logging")


def key() -> Found:
    """Find a SECRET_KEY that others know."""
    secret = str(getattr(settings, "SECRET_KEY", "") if settings.is_overridden("SECRET_KEY") else "")
    if secret and (len(secret) < SHORT or PLACEHOLDER.search(secret)):
        text = f"SECRET_KEY is a placeholder or short: anyone can forge a login. Set in your settings: {KEY}"
        yield Warning(text, id="stack.secret_key")


def way_out() -> Found:
    """Find services on the internet that the project wants to reach, where there is no way out."""
    if not has_no_way_out():
        return
    wants = mail_hosts()
    wants["SENTRY_DSN"] = urlsplit(os.environ.get("SENTRY_DSN", "")).hostname or ""
    for name, storage in settings.STORAGES.items():
        if re.search(r"\.(s3|s3boto3|gcloud|azure_storage|dropbox)\b", str(storage.get("BACKEND", ""))):
            wants[f"STORAGES {name}"] = "storage.on.the.internet"
    found = [name for name, host in wants.items() if is_far(host)]
    if found:
        yield Warning(f"{' and '.join(found)}: {EGRESS}", id="stack.egress")


def mail_hosts() -> dict[str, str]:
    """Return the hosts that mail is sent to, by setting: MAILERS since Django 6.1, EMAIL_HOST before."""
    smtp = "smtp.EmailBackend"
    if not hasattr(settings, "MAILERS"):
        return {"EMAIL_HOST": settings.EMAIL_HOST if settings.EMAIL_BACKEND.endswith(smtp) else ""}
    return {
        f"MAILERS {name}": str(mailer.get("OPTIONS", {}).get("host", ""))
        for name, mailer in settings.MAILERS.items()
        if str(mailer.get("BACKEND", "")).endswith(smtp)
    }


def has_no_way_out() -> bool:
    """Return whether this container has no default route."""
    routes = ROUTES.read_text().splitlines()[1:] if ROUTES.exists() else []
    return bool(routes) and not any(route.split()[1] == "00000000" for route in routes)


def is_far(host: str) -> bool:
    """Return whether a host is on the internet: not a container, and not a private address."""
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return "." in host


def real(place: str | Path) -> Path:
    """Return a path without its links: the build links what the project writes into the volumes."""
    return Path(place).resolve()


def kept(place: str | Path) -> bool:
    """Return whether what is written to a place outlives the container."""
    return real(place).is_relative_to(DATA)


def writable(place: str | Path) -> bool:
    """Return whether a folder, or where it would be made, can be written to."""
    path = real(place)
    while not path.exists():
        path = path.parent
    return os.access(path, os.W_OK)


CHECKS: tuple[Callable[[], Found], ...] = (
    hosts,
    databases,
    debug,
    key,
    proxy,
    static_files,
    uploads,
    shared,
    logs,
    way_out,
)


def stack(**_: Any) -> list[CheckMessage]:
    """Return what is found."""
    if os.environ.get("UWSGI_MODULE") == "development":
        return []
    return [message for check in CHECKS for message in found_by(check)]


def found_by(check: Callable[[], Found]) -> list[CheckMessage]:
    """Return what a check finds; nothing if it meets settings of a kind that it does not know."""
    try:
        return [*check()]
    except Exception:  # a project that is right must not be stopped by a check that is wrong
        return []


register(stack, "stack")
