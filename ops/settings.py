"""What git does not carry: .env, project.env and the secret key."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path

from ops.console import ROOT, Stop

KEY = Path("secrets/django_secret_key")
# Django's own check asks for 50 characters.
KEY_BYTES = 48
# Readable by all because the container's user is not one of this machine's, and a compose secret keeps the
# mode of its file. Its folder, 0700, is what keeps other users of this machine out.
MODE = 0o444
READABLE_BY_ALL = 0o004
OWN = """# What your project's own settings read from the environment, one NAME=value per line. After a change: make up.
# Anyone who may use Docker on this machine can read it.
"""


def ensure(root: Path = ROOT) -> None:
    """Make .env, project.env and Django's secret key where they are missing.

    Raises Stop if the key is there but empty: replacing it would end every session, so only the owner may
    decide that.
    """
    env, own, key = root / ".env", root / "project.env", root / KEY
    if not env.exists():
        shutil.copyfile(root / ".env.example", env)
        print("Made .env from .env.example: the settings of this stack, yours to change")
    if not own.exists():
        own.write_text(OWN)
        own.chmod(0o600)
    if not key.exists():
        make_secret(key, KEY_BYTES)
        print(f"Made {KEY}: keep it, sessions are signed with it")
    elif not key.read_text().strip():
        raise Stop(f"{KEY} is empty. Put your key back, or have a new one made: rm {KEY} && ops/run setup")
    elif not key.stat().st_mode & READABLE_BY_ALL:
        key.chmod(MODE)


def make_secret(file: Path, size: int) -> None:
    """Write a new secret of so many random bytes."""
    file.parent.mkdir(mode=0o700, exist_ok=True)
    file.parent.chmod(0o700)
    write(file, f"{secrets.token_urlsafe(size)}\n".encode(), MODE)


def write(file: Path, content: bytes, mode: int) -> None:
    """Write a file, complete or not at all."""
    new = file.with_name(f".{file.name}.new")
    new.write_bytes(content)
    new.chmod(mode)
    new.replace(file)
