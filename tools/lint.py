"""`make lint`: every check that needs no container, in seconds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
# Returns what is wrong, or nothing.
Check = Callable[[], str]
# A project of your own in app/ is yours to lint.
SAMPLE = (ROOT / "app/home/stack.py").is_file()
# Written as other people write their projects
FOREIGN = ("tests/projects/",)
TABLE = "CONTRIBUTING.md"
WORDLESS = (TABLE, "LICENSE", *FOREIGN)
# The glob of git leaves out folders below docs/: what is in docs/measured/ is mostly printed by programs.
PAGES = ("README.md", "SECURITY.md", "CONTRIBUTING.md", ":(glob)docs/*.md")
WIDTH = 120
IGNORED = "words: ignore"


def main() -> int:
    """Run every check and return 1 if one failed."""
    return summary(report(checks()))


def checks() -> dict[str, Check]:
    """Return the checks by name, the slow ones first: they are started in this order."""
    scripts = [name for name in listed() if (ROOT / name).read_bytes().startswith((b"#!/bin/sh", b"#!/bin/bash"))]
    found: dict[str, Check] = {
        "mypy": mypy("3.11", "ops", "tests", "tools", "--exclude", "tests/(probe|projects)|tools/bench/project"),
        # A false alarm is silenced at its line (pragma: allowlist secret); the hashes of a lock are many.
        "secrets": program("detect-secrets-hook", "--exclude-files", r"requirements\.txt$", *listed()),
        "mypy backup": mypy("3.11", "backup"),
        "mypy uwsgi": mypy("3.13", *listed("uwsgi/*.py")),
        # Apart from uwsgi/, because both folders have a healthcheck.py.
        "mypy sockets": mypy("3.13", *listed("sockets/*.py")),
        "mypy certificates": mypy("3.13", *listed("certificates/*.py")),
    }
    if SAMPLE:
        found["mypy app"] = mypy("3.13", "app/config", "app/home")
    python = ("--force-exclude", *listed("*.py"))
    found |= {
        "ruff": program("ruff", "check", *python),
        "ruff format": program("ruff", "format", "--check", *python),
        "shellcheck": program("shellcheck", *scripts),
        "hadolint": program("hadolint", *listed("*Dockerfile")),
        "yamllint": program("yamllint", "--strict", *listed("*.yaml", "*.yml")),
        "actionlint": program("actionlint", "-shellcheck", f"{BIN}/shellcheck", *listed(".github/workflows/*.yml")),
        "whitespace": whitespace,
        "long lines": long_lines,
        "words": words,
    }
    return found


def listed(*patterns: str) -> list[str]:
    """Return our files that match, as git would add them."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *patterns]
    names = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split("\0")
    theirs = () if SAMPLE else ("app/",)
    return [name for name in names if (ROOT / name).is_file() and not name.startswith(theirs)]


def program(name: str, *arguments: str) -> Check:
    """Return the check that a program of .venv ends with 0."""
    return command(f"{BIN}/{name}", *arguments)


def command(*words: str) -> Check:
    """Return the check that a command ends with 0."""

    def check() -> str:
        try:
            done = subprocess.run(
                words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, cwd=ROOT
            )
        except FileNotFoundError:
            return f"{words[0]} is missing. If it belongs in .venv, run: tools/venv"
        return (done.stdout or f"ended with {done.returncode}") if done.returncode else ""

    return check


def mypy(version: str, *arguments: str) -> Check:
    """Return a check of types, for the Python on which these files run."""
    # One cache for each, since they run at the same time.
    cache = f".mypy_cache/{arguments[0].partition('/')[0]}"
    return program("mypy", "--python-version", version, "--cache-dir", cache, *arguments)


def whitespace() -> str:
    """Check the first section of .editorconfig."""
    return "\n".join(
        f"{name}:{number}: {problem}" for name, text in texts(FOREIGN) for number, problem in bad_whitespace(text)
    )


def bad_whitespace(text: str) -> Iterator[tuple[int, str]]:
    """Yield line and problem of what .editorconfig forbids everywhere."""
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if line.endswith("\r"):
            yield number, "ends with CRLF"
        elif line != line.rstrip():
            yield number, "has spaces at its end"
    if text and (lines[-1] or lines[-2:] == ["", ""]):
        yield len(lines), "the file does not end with exactly one line feed"


def long_lines() -> str:
    """Check that the pages of the documentation have no longer lines than the code; a row of a table is one line."""
    return "\n".join(
        f"{name}:{number}: {len(line)} characters, of at most {WIDTH}"
        for name in listed(*PAGES)
        for number, line in enumerate((ROOT / name).read_text().splitlines(), 1)
        if len(line) > WIDTH and not line.startswith("|")
    )


def words() -> str:
    """Check that no text uses a word that CONTRIBUTING.md forbids."""
    instead = forbidden((ROOT / TABLE).read_text())
    # Longest first: a phrase before a word it begins with.
    either = "|".join(re.escape(word) for word in sorted(instead, key=len, reverse=True))
    pattern = re.compile(rf"(?<!\w)(?:{either})(?!\w)", re.IGNORECASE)
    return "\n".join(
        f"{name}:{number}: {match[0]} (write: {instead[match[0].lower()]})"
        for name, text in texts(WORDLESS)
        for number, line in enumerate(text.splitlines(), 1)
        if IGNORED not in line
        for match in pattern.finditer(line)
    )


def forbidden(page: str) -> dict[str, str]:
    """Return what to write for each word in the column "not" of the tables of a page."""
    found: dict[str, str] = {}
    header: list[str] = []
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            header = []
        elif not header:
            header = cells
        elif "not" in header:
            found |= {word.lower(): cells[0] for word in re.findall(r"`([^`]+)`", cells[header.index("not")])}
    return found


def texts(left_out: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield name and content of each of our text files that is not made by a program."""
    for name in listed():
        content = (ROOT / name).read_bytes()
        if not name.startswith(left_out) and not name.endswith("requirements.txt") and b"\0" not in content:
            yield name, content.decode()


def report(some: Mapping[str, Check], at_once: int | None = os.cpu_count()) -> list[bool]:
    """Run checks, by default as many at once as there are cores, print each in its turn, and return which passed."""
    passed = []
    with ThreadPoolExecutor(at_once) as pool:
        for name, running in [(name, pool.submit(check)) for name, check in some.items()]:
            problems = running.result()
            print(f"{'FAIL' if problems else 'ok  '}  {name}", flush=True)
            if problems:
                print(problems.rstrip("\n"), end="\n\n", flush=True)
            passed.append(not problems)
    return passed


def summary(passed: list[bool]) -> int:
    """Print how many checks passed and return the exit code."""
    print(f"{passed.count(True)} passed, {passed.count(False)} failed")
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
