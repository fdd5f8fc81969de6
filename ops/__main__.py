"""The verbs behind the Makefile that take more than one command: `python3 -m ops VERB`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from ops import releases, stack
from ops.adopt import adopt
from ops.console import Stop
from ops.deploy import deploy, rollback, scale
from ops.doctor import doctor
from ops.reload import reload
from ops.setup import setup
from ops.status import status
from ops.top import top
from ops.trace import trace
from ops.up import develop, direct, up


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(prog="ops", description=__doc__)
    verbs = made.add_subparsers(dest="verb", required=True)
    verbs.add_parser("setup", help="what a fresh machine lacks: Docker, base image, settings, secrets")
    verbs.add_parser("up", help="build and start").add_argument("transport", choices=stack.TRANSPORTS)
    verbs.add_parser("adopt", help="what to change in the project in app/ before the first build")
    verbs.add_parser("dev", help="the source mounted and watched")
    verbs.add_parser("direct", help="uWSGI answering HTTP by itself")
    verbs.add_parser("reload", help="reload every uwsgi container, one after the other")
    verbs.add_parser("status", help="workers and queue").add_argument("--json", action="store_true")
    verbs.add_parser("top", help="status, again and again").add_argument("--times", type=int)
    verbs.add_parser("deploy", help="bring the code in app/ into service, no request lost")
    verbs.add_parser("rollback", help="bring the release before back")
    verbs.add_parser("releases", help="the releases that are kept")
    verbs.add_parser("scale", help="run N uwsgi containers").add_argument("number")
    verbs.add_parser("forget", help="remove all releases, for make clean")
    verbs.add_parser("doctor", help="what is wrong with what runs, and how to mend it")
    verbs.add_parser("trace", help="all that was logged about one request").add_argument("id")
    verbs.add_parser("files", help="the compose files that made what runs, for COMPOSE_FILE")
    return made


VERBS: dict[str, Callable[[argparse.Namespace], None]] = {
    "setup": lambda _: setup(),
    "up": lambda asked: up(asked.transport),
    "adopt": lambda _: adopt(),
    "dev": lambda _: develop(),
    "direct": lambda _: direct(),
    "deploy": lambda _: deploy(),
    "rollback": lambda _: rollback(),
    "releases": lambda _: releases.show(),
    "scale": lambda asked: scale(asked.number),
    "reload": lambda _: reload(),
    "status": lambda asked: status(asked.json),
    "doctor": lambda _: doctor(),
    "top": lambda asked: top(asked.times),
    "trace": lambda asked: trace(asked.id),
    "files": lambda _: print(":".join(stack.running_files() or stack.chosen_files())),
    "forget": lambda _: releases.forget_all(),
}


def main() -> int:
    """Carry one verb out and return the exit code."""
    asked = parser().parse_args()
    try:
        VERBS[asked.verb](asked)
    except Stop as stop:
        print(f"\n{stop}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
