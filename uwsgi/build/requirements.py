#!/usr/bin/python3
"""Build step: install what the project needs into /venv, from the file that layout.py has found.

A lock is exported for pip by the tool that made it, with its hashes. Folders of the project (`-e .`, `./libs/tax`) are
a second step, so that a change of code does not install everything again.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

# The files that say what to install, without the rest of the project
FILES = Path("/build")
PROJECT = Path("/app")
# The project, if a folder of it is among what it installs
FOLDERS = Path("/folders")
EXPORTERS = Path("/opt/exporters")
PIP = [sys.executable, "-m", "pip", "--python", "/venv/bin/python", "install"]
UV = ["uv", "export", "--quiet", "--frozen", "--no-header", "--no-annotate", "--emit-index-url"]
# Of each lock: the tool and the words with which it exports what a site needs, and those with which it exports all
EXPORTS = {
    "uv.lock": ([*UV, "--no-dev"], UV),
    "poetry.lock": (["poetry", "export", "--only", "main"], ["poetry", "export", "--all-groups"]),
    "pdm.lock": (["pdm", "export", "--no-extras", "--production"], ["pdm", "export", "--no-extras"]),
    "Pipfile.lock": (["pipenv", "requirements", "--hash"], ["pipenv", "requirements", "--hash", "--dev"]),
}
# No lock: the newest versions of today
EXPORTS["pyproject.toml"] = (["uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", "pyproject.toml"],) * 2
DEVELOPMENT = ("requirements-dev.txt", *(f"requirements/{name}.txt" for name in ("dev", "development", "local")))
OPTION = re.compile(r"-(i|-index-url|-extra-index-url|f|-find-links|-pre|-trusted-host)\b")
# `-e .`, `.[extra]`, `../shared`, `libs/tax`: not an archive, and not an address
FOLDER = re.compile(r"((-e|--editable)[ =]*(?=[^ =])(?!\S*://)|\.{1,2}(?=[/\[;\s]|$)|[\w-]+/)(?!\S*\.(whl|zip|gz)\b)")


def entries(text: str) -> list[str]:
    """Return the requirements and options of a file, each with the lines that continue it."""
    lines = re.split(r"(?<!\\)\n", text)
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def entries_of(file: Path) -> list[str]:
    """Return the entries of a file. Windows writes some in UTF-16: they are pip's to read."""
    return entries(file.read_text(errors="surrogateescape"))


def is_folder(entry: str) -> bool:
    """Return whether an entry is a folder of the project."""
    return FOLDER.match(entry) is not None


def split(text: str) -> dict[str, str]:
    """Return an export in three parts, because pip refuses a file in which only some entries have hashes."""
    found = entries(text)
    options = [entry for entry in found if OPTION.match(entry)]
    packages = [entry for entry in found if entry not in options]
    parts = {
        "hashed": [entry for entry in packages if "--hash=" in entry],
        "folders": [entry for entry in packages if is_folder(entry)],
    }
    parts["others"] = [entry for entry in packages if entry not in parts["hashed"] + parts["folders"]]
    return {name: "\n".join([*options, *part, ""]) for name, part in parts.items() if part}


def export(lock: Path, *, development: bool = False) -> str:
    """Return what a lock pins, in pip's format. Ends the process if its tool refuses it."""
    tool, *words = EXPORTS[lock.name][development]
    home = EXPORTERS / tool
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--root-user-action", "ignore", "--no-deps"]
    run([*pip, "--require-hashes", "--target", str(home), "--requirement", f"{home}/requirements.txt"])
    program = [f"{home}/bin/uv"] if tool == "uv" else [sys.executable, "-m", tool]
    # Pipenv would otherwise look for its own environment, and PDM for a newer version of itself.
    environment = {
        **os.environ,
        "PYTHONPATH": str(home),
        "PIPENV_IGNORE_VIRTUALENVS": "1",
        "PDM_CHECK_UPDATE": "0",
        "UV_PYTHON": "/venv/bin/python",
    }
    if index := os.environ.get("PIP_INDEX_URL"):
        environment["UV_DEFAULT_INDEX"] = index
    done = subprocess.run(
        [*program, *words], cwd=lock.parent, env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"ERROR: {tool} {' '.join(words)} failed (above). Is {lock.name} up to date?")
    # Poetry writes the folders of a project with their whole path.
    text = done.stdout.replace(f"file://{lock.parent}", ".")
    # With a mirror of your own, its address replaces the one in the lock.
    return re.sub(r"^(-i|--index-url) .*\n", "", text, flags=re.MULTILINE) if index else text


def install(folder: Path, *options: str) -> None:
    """Run pip in a folder of the project, as its paths are meant. Ends the process if pip fails."""
    run([*PIP, *options], folder)


def run(words: Sequence[str], folder: Path = FILES) -> None:
    """Run a command. Ends the process with its exit code if it fails: it has said why."""
    if code := subprocess.run(words, cwd=folder, check=False).returncode:
        sys.exit(code)


def copy_folders(file: Path) -> None:
    """Copy the project for the step `folders`, unless its requirements name no folder of it.

    Without such a folder that step depends on nothing that a change of code changes, and is not run again.
    """
    FOLDERS.mkdir()
    named = (is_folder(entry) for each in FILES.rglob("*.txt") for entry in entries_of(each))
    # What is in a lock is known once it is exported.
    if file.suffix != ".txt" or any(named):
        shutil.copytree(PROJECT, FOLDERS, symlinks=True, dirs_exist_ok=True)


def packages(file: Path) -> None:
    """Install all that does not come from a folder of the project."""
    if file.suffix == ".txt":
        # In every file, since one includes another.
        for each in FILES.rglob("*.txt"):
            found = entries_of(each)
            if any(map(is_folder, found)):
                each.rename(each.with_suffix(".all"))
                each.write_text("\n".join([*(entry for entry in found if not is_folder(entry)), ""]))
        install(working_folder(file), "--requirement", str(file))
        return
    for name, text in split(export(file)).items():
        file.with_name(f"{name}.in").write_text(text)
    for name in ("hashed", "others"):
        if file.with_name(f"{name}.in").is_file():
            # An export is complete.
            install(file.parent, "--no-deps", "--requirement", str(file.with_name(f"{name}.in")))


def folders(file: Path) -> None:
    """Install the folders of the project that its requirements name, if any."""
    there = PROJECT / working_folder(file).relative_to(FILES)
    if file.suffix == ".txt":
        if any(FILES.rglob("*.all")):
            install(there, "--requirement", str(PROJECT / file.relative_to(FILES)))
    elif (named := file.with_name("folders.in")).is_file():
        install(there, "--no-deps", "--requirement", str(named))


def development(file: Path) -> None:
    """Install the packages for development: the first of the files that usually list them, or the lock's."""
    named = [each for each in map(working_folder(file).joinpath, DEVELOPMENT) if each.is_file()]
    if file.suffix == ".txt" and named:
        install(working_folder(file), "--requirement", str(named[0]))
    elif file.suffix == ".lock":
        for name, text in split(export(file, development=True)).items():
            file.with_name(f"development-{name}.in").write_text(text)
            if name != "folders":
                install(file.parent, "--no-deps", "--requirement", str(file.with_name(f"development-{name}.in")))


def working_folder(file: Path) -> Path:
    """Return the folder in which a project's own instructions have pip run."""
    return file.parent.parent if file.parent.name == "requirements" else file.parent


if __name__ == "__main__":
    steps = {"copy-folders": copy_folders, "packages": packages, "folders": folders, "development": development}
    steps[sys.argv[1]](FILES / Path("/layout/requirements").read_text())
