"""What the set-up steps share: how they run a command, say what they do, and stop."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class Stop(Exception):
    """The set-up cannot go on. The text says what is wrong and what to type."""


def quiet(command: Sequence[str], seconds: float = 30) -> str | None:
    """Return what `command` prints, or None if it fails, is missing or takes longer than `seconds`."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False, cwd=ROOT)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def step(title: str, command: str, seconds: float = 900) -> None:
    """Run a shell `command` that takes a while, with one line that says so.

    Raises Stop with the end of its output if it fails or takes longer than `seconds`.
    """
    print(f"  {title} ...", end="", flush=True)
    began = time.monotonic()
    try:
        done = subprocess.run(
            ["sh", "-euc", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
            cwd=ROOT,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        )
    except subprocess.TimeoutExpired as slow:
        print(" failed")
        raise Stop(f"Gave up after {seconds:.0f} s on:\n  {command}") from slow
    if done.returncode != 0:
        print(" failed")
        end = "\n".join(done.stdout.splitlines()[-15:])
        raise Stop(f"{end}\n\nThis command failed; mend what it says and start again:\n  {command}")
    print(f" {time.monotonic() - began:.0f} s")
