"""The update that docs/forking.md describes: app/ stays the fork's, everything else takes upstream's changes."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.stack import ROOT

# Not the settings of the person who runs the tests: they may sign commits or merge in another way.
IDENTITY = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.com",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.com",
}
# Long enough for git to see a small change as one, and a moved file as moved
BODY = "".join(f"line {number}\n" for number in range(40))


def shell(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a folder; its exit code is that of its last command."""
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(folder), **IDENTITY}
    return subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def git(folder: Path, *arguments: str) -> str:
    """Return what a git command prints; it must succeed."""
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env={"PATH": "/usr/local/bin:/usr/bin:/bin", **IDENTITY},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def commit(folder: Path, files: Mapping[str, str | None], message: str) -> None:
    """Write files, or delete those without text, and commit exactly these."""
    for name, text in files.items():
        path = folder / name
        if text is None:
            path.unlink()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    git(folder, "add", "--all", "--", *files)
    git(folder, "commit", "--quiet", "--message", message)


def tree(folder: Path) -> dict[str, str]:
    """Return every file in app/, whether git knows it or not."""
    return {str(path.relative_to(folder)): path.read_text() for path in (folder / "app").rglob("*") if path.is_file()}


def documented() -> str:
    """Return the commands of the section "Update"."""
    section = (ROOT / "docs/forking.md").read_text().split("\n## Update\n")[1].split("\n## ")[0]
    return str(re.findall(r"```sh\n(.*?)```", section, re.DOTALL)[0])


@pytest.fixture
def fork(tmp_path: Path) -> Path:
    """A fork that has replaced app/, of an upstream that has since changed app/ in every way."""
    upstream, fork = tmp_path / "upstream", tmp_path / "fork"
    upstream.mkdir()
    git(upstream, "init", "--quiet", "--initial-branch", "main")
    sample = ("manage.py", "requirements.txt", "config/settings.py", "config/urls.py", "home/views.py", "home/old.py")
    files = {f"app/{name}": f"{name}\n{BODY}" for name in sample}
    commit(upstream, {**files, "compose.yaml": BODY, "nginx/site.conf": BODY}, "the sample")

    git(tmp_path, "clone", "--quiet", "--origin", "upstream", str(upstream), str(fork))
    replaced: dict[str, str | None] = {f"app/{name}": None for name in sample[2:]}
    # Much like a file of the sample, so that git takes it for the same one, moved
    replaced |= {"app/shop/views.py": f"home/views.py\n{BODY}", "app/manage.py": f"the fork's\n{BODY}"}
    replaced |= {"app/shop/models.py": "the fork's\n", "nginx/site.conf": f"{BODY}the fork's\n"}
    commit(fork, replaced, "our project")

    commit(
        upstream,
        {
            "app/manage.py": f"upstream's\n{BODY}",
            "app/requirements.txt": f"{BODY}upstream's\n",
            "app/config/settings.py": f"{BODY}upstream's\n",
            "app/home/views.py": f"home/views.py\n{BODY}upstream's\n",
            "app/home/old.py": None,
            "app/home/new.py": "upstream's\n",
            "app/shop": "upstream's file where the fork has a folder\n",
            "compose.yaml": f"upstream's\n{BODY}",
            "nginx/site.conf": f"upstream's\n{BODY}",
        },
        "a new version",
    )
    return fork


def test_an_update_keeps_app_and_takes_the_rest(fork: Path) -> None:
    (fork / "app/.env").write_text("not committed\n")
    before = tree(fork)
    done = shell(fork, documented())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "CONFLICT" in done.stdout, "otherwise this test tries nothing"
    assert tree(fork) == before
    assert git(fork, "diff", "HEAD^1", "HEAD", "--stat", "--", "app") == ""
    assert (fork / "compose.yaml").read_text() == f"upstream's\n{BODY}"
    assert (fork / "nginx/site.conf").read_text() == f"upstream's\n{BODY}the fork's\n"
    assert git(fork, "status", "--porcelain") == "?? app/.env\n"
    assert git(fork, "rev-list", "--count", "HEAD..upstream/main").strip() == "0", "it is a merge"


def test_the_next_update_works_as_well(fork: Path) -> None:
    shell(fork, documented())
    upstream = fork.parent / "upstream"
    commit(upstream, {"app/home/new.py": "again\n", "app/zoo.py": "zoo\n", "compose.yaml": f"two\n{BODY}"}, "another")
    before = tree(fork)
    done = shell(fork, documented())
    assert done.returncode == 0, done.stdout + done.stderr
    assert tree(fork) == before
    assert (fork / "compose.yaml").read_text() == f"two\n{BODY}"


def test_a_conflict_outside_of_app_is_left_to_the_reader(fork: Path) -> None:
    commit(fork, {"compose.yaml": f"the fork's\n{BODY}"}, "a limit")
    done = shell(fork, documented())
    assert done.returncode != 0
    assert git(fork, "diff", "--name-only", "--diff-filter=U") == "compose.yaml\n"
    git(fork, "checkout", "--theirs", "compose.yaml")
    git(fork, "add", "compose.yaml")
    git(fork, "commit", "--no-edit", "--quiet")
    assert git(fork, "status", "--porcelain") == ""
