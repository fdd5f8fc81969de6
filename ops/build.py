"""Build the images, showing the steps that take time and, if it fails, only the reason."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Sequence

from ops import stack
from ops.console import ROOT, Stop
from ops.stack import compose_command

STEP = re.compile(r"#(\d+) \[(.+?)\] (RUN .+)")
LINE = re.compile(r"#(\d+) (.*)")
SHOWN = 100


def build(files: Sequence[str], *services: str, release: str | None = None) -> None:
    """Build what these files need, or only some services. Raises Stop with the failing step's last lines."""
    running = subprocess.Popen(
        compose_command(files, "--progress", "plain", "build", *services),
        env=stack.environment(release),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )
    assert running.stdout is not None
    lines = list(relay(running.stdout))
    if running.wait() != 0:
        raise Stop(f"{reason(lines)}\n\nAn image did not build (above). What was running runs on; nothing was changed.")


def relay(output: Iterable[str]) -> Iterable[str]:
    """Pass every line on, and print the title of each RUN step that is not answered from the cache."""
    waiting: dict[str, str] = {}
    printed: set[str] = set()
    for line in output:
        yield line.rstrip("\n")
        if title := STEP.match(line):
            waiting[title[1]] = f"  {' '.join(title[3].split())}"[:SHOWN]
        elif (rest := LINE.match(line)) and rest[1] in waiting:
            shown = waiting.pop(rest[1])
            # Images built at once share steps, and each tells them again.
            if rest[2] != "CACHED" and shown not in printed:
                printed.add(shown)
                print(shown, flush=True)


def reason(lines: Sequence[str]) -> str:
    """Return the lines that say why a build failed: those marked as errors, else the last ones."""
    errors = [
        re.sub(r"^#\d+ [\d.]+ ", "", line)
        for line in lines
        if re.match(r"(#\d+ [\d.]+ )?(ERROR|E:|error:|\w*Error:)", line) and "failed to solve" not in line
    ]
    return "\n".join(dict.fromkeys(errors[-6:])) or "\n".join(lines[-12:])
