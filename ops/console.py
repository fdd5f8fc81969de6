"""What all verbs share: how they run a command, say what they do, and stop."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class Stop(Exception):
    """The verb cannot go on. The text says what is wrong and what to type."""


def run(
    command: Sequence[str],
    seconds: float | None = None,
    *,
    text: str = "",
    merged: bool = False,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command in the folder of the repository, with `text` as its input, and return its result.

    `merged` puts its errors between its other output; `environment` is added to this process's own. Raises
    Stop if the command is not installed.
    """
    errors = subprocess.STDOUT if merged else subprocess.PIPE
    try:
        return subprocess.run(
            command,
            input=text,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            errors="replace",
            timeout=seconds,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
        )
    except FileNotFoundError as missing:
        raise Stop(f"{command[0]} is not installed. Set this machine up: ops/run setup") from missing


def quiet(command: Sequence[str], seconds: float = 30) -> str | None:
    """Return what `command` prints, or None if it fails, is missing or takes longer than `seconds`."""
    try:
        result = run(command, seconds)
    except (Stop, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def step(title: str, command: str, seconds: float = 900) -> None:
    """Run a shell `command` that takes a while, with one line that says so.

    Raises Stop with the end of its output if it fails or takes longer than `seconds`.
    """
    print(f"  {title} ...", end="", flush=True)
    began = time.monotonic()
    try:
        result = run(["env", "DEBIAN_FRONTEND=noninteractive", "sh", "-euc", command], seconds, merged=True)
    except subprocess.TimeoutExpired as slow:
        print(" failed")
        raise Stop(f"Gave up after {seconds:.0f} s on:\n  {command}") from slow
    if result.returncode != 0:
        print(" failed")
        end = "\n".join(result.stdout.splitlines()[-15:])
        raise Stop(f"{end}\n\nThis command failed. Fix what it says (above) and start again:\n  {command}")
    print(f" {time.monotonic() - began:.0f} s")
