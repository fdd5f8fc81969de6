#!/venv/bin/python
"""Import the project as uWSGI will, and say in one line why it cannot be."""

import importlib
import os
import sys
import traceback


def problem(module: str, name: str) -> str | None:
    """Return why `name` cannot be had from `module`, None if it can."""
    try:
        found = importlib.import_module(module)
    except Exception as error:  # the project's own code: anything may come out of it
        traceback.print_exc(limit=-3)
        return f"UWSGI_MODULE {module}: {type(error).__name__}: {error}"
    if not callable(getattr(found, name, None)):
        return f"UWSGI_MODULE {module} has no callable `{name}`. In .env: UWSGI_MODULE={module}:application"
    return None


if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())
    asked, _, callable_name = os.environ["UWSGI_MODULE"].partition(":")
    if said := problem(asked, callable_name or "application"):
        print(said)
        sys.exit(1)
