"""The verbs behind the Makefile that take more than one command: `python3 -m ops VERB`."""

from __future__ import annotations

import argparse
import sys

from bootstrap.console import Stop
from ops import stack
from ops.reload import reload
from ops.status import status
from ops.up import direct, up


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(prog="ops", description=__doc__)
    verbs = made.add_subparsers(dest="verb", required=True)
    verbs.add_parser("up", help="build and start").add_argument("transport", choices=stack.TRANSPORTS)
    verbs.add_parser("direct", help="uWSGI answering HTTP by itself")
    verbs.add_parser("reload", help="reload every uwsgi container, one after the other")
    verbs.add_parser("status", help="workers and queue").add_argument("--json", action="store_true")
    verbs.add_parser("files", help="the compose files that made what runs, for COMPOSE_FILE")
    return made


def main() -> int:
    """Carry one verb out and return the exit code."""
    asked = parser().parse_args()
    try:
        match asked.verb:
            case "up":
                up(asked.transport)
            case "direct":
                direct()
            case "reload":
                reload()
            case "status":
                status(asked.json)
            case "files":
                print(":".join(stack.running_files() or stack.chosen_files()))
    except Stop as stop:
        print(f"\n{stop}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
