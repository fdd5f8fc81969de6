from .base import *  # noqa: F403

DEBUG = True
SECRET_KEY = "only for my own machine"  # pragma: allowlist secret
INSTALLED_APPS = [*INSTALLED_APPS, "debug_toolbar"]  # noqa: F405
