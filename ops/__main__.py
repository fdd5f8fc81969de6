"""The verbs behind the Makefile that take more than one command: `ops/run VERB`."""

from __future__ import annotations

import argparse
import errno
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ops import backup, base_image, bring, engine, releases, settings, stack, state
from ops.adopt import adopt
from ops.certificate import certificate
from ops.change import belongs_to_another
from ops.console import ROOT, Stop
from ops.deploy import deploy, reload, rollback, scale
from ops.doctor import doctor
from ops.restore import restore
from ops.status import status, top
from ops.stop import clean, down, manage, restart, stop
from ops.trace import trace
from ops.up import develop, direct, up


@dataclass(frozen=True)
class Verb:
    """One verb: its line in the help, its function, its arguments, and whether the machine is set up first."""

    help: str
    do: Callable[..., None]
    arguments: dict[str, dict[str, Any]] = field(default_factory=dict)
    set_up: bool = False


def set_up() -> None:
    """Make sure of Docker, the settings, the secret key and the base images. If all are there: silent and quick.

    Raises Stop with what to type.
    """
    engine.ensure()
    settings.ensure()
    for image in base_image.names():
        base_image.ensure(image)
    backup.prepare()


def print_files() -> None:
    """Print the files of the running stack as COMPOSE_FILE takes them."""
    print(":".join(state.current_files()))


TRANSPORT = {"transport": {"choices": stack.TRANSPORTS, "nargs": "?"}}
BRING: dict[str, dict[str, Any]] = {
    "source": {"metavar": "FROM"},
    "--replace": {"action": "store_true", "help": "replace what is there; a copy is kept"},
}
CERTIFICATE: dict[str, dict[str, Any]] = {"--chain": {"default": ""}, "--key": {"default": ""}}
VERBS = {
    "setup": Verb("set up a fresh machine: Docker, base image, settings, secret key", set_up),
    "adopt": Verb("list what to change in the project before the first build", adopt),
    "up": Verb("build and start", up, TRANSPORT, set_up=True),
    "dev": Verb("start with the source mounted and watched", develop, set_up=True),
    "direct": Verb("start a uWSGI that answers HTTP itself", direct, set_up=True),
    "deploy": Verb("deploy the project's code without losing a request", deploy, set_up=True),
    "rollback": Verb("return to the previous release", rollback),
    "releases": Verb("list the releases that are kept", releases.show),
    "scale": Verb("run N uwsgi containers", scale, {"wanted": {"metavar": "N"}}),
    "reload": Verb("reload every uwsgi container, one after the other", reload),
    "status": Verb("print workers and queue", status, {"--json": {"dest": "as_json", "action": "store_true"}}),
    "top": Verb("print workers and queue every second", top, {"--times": {"type": int}}),
    "doctor": Verb("diagnose the running stack", doctor),
    "trace": Verb("print everything logged about one request", trace, {"wanted": {"metavar": "ID"}}),
    "files": Verb("print the compose files of the running stack, for COMPOSE_FILE", print_files),
    "stop": Verb("stop the containers gracefully", stop),
    "down": Verb("stop and remove the containers", down),
    "restart": Verb("restart a service", restart, {"service": {"metavar": "SERVICE"}}),
    "clean": Verb("remove containers, images and data", clean),
    "bring-database": Verb("copy an SQLite database into the stack", bring.database, BRING),
    "bring-media": Verb("copy a folder of uploads into the stack", bring.media, BRING),
    "certificate": Verb("get a certificate now, or serve your own", certificate, CERTIFICATE),
    "backup": Verb("make a backup of data, uploads and settings", backup.backup, set_up=True),
    "backups": Verb("list the backups", backup.show),
    "restore": Verb("restore a backup", restore, {"source": {"metavar": "FROM"}}),
    "manage": Verb("run manage.py in a separate container", manage, {"words": {"nargs": argparse.REMAINDER}}),
}


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(prog="ops/run", description=__doc__)
    subparsers = made.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, verb in VERBS.items():
        subparser = subparsers.add_parser(name, help=verb.help)
        for argument, options in verb.arguments.items():
            subparser.add_argument(argument, **options)
    return made


def main() -> int:
    """Carry one verb out and return the exit code."""
    arguments = vars(parser().parse_args())
    verb = VERBS[arguments.pop("verb")]
    try:
        if verb.set_up:
            set_up()
        verb.do(**arguments)
    except Stop as stopped:
        print(f"\n{stopped}", file=sys.stderr)
        return 1
    except subprocess.TimeoutExpired as slow:
        words = " ".join(slow.cmd[:4])
        print(f"\n{words} ... took longer than {slow.timeout:.0f} s. See the engine: docker info", file=sys.stderr)
        return 1
    except PermissionError as refused:
        print(f"\n{belongs_to_another(Path(refused.filename or ROOT))}", file=sys.stderr)
        return 1
    except OSError as problem:
        if problem.errno != errno.ENOSPC:
            raise
        print(f"\nThe disk of {problem.filename or ROOT} is full. Make room: docker system df, df -h", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
