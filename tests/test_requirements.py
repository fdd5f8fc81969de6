"""What is installed: the entries of a lock in the parts that pip takes, and the project's own folders apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from uwsgi.build import requirements

HASHED = "django==5.2 ; python_version >= '3.11' \\\n    --hash=sha256:00 \\\n    --hash=sha256:11"
EXPORTED = f"""# made by a tool
--index-url https://pypi.example.com/simple

-e .
-e ./libs/tax ; python_version >= "3.11"
{HASHED}
hello @ git+https://example.com/hello.git@0123
"""


def test_an_export_is_split_because_pip_wants_hashes_for_all_or_none() -> None:
    option = "--index-url https://pypi.example.com/simple\n"
    assert requirements.split(EXPORTED) == {
        "hashed": f"{option}{HASHED}\n",
        "folders": f'{option}-e .\n-e ./libs/tax ; python_version >= "3.11"\n',
        "others": f"{option}hello @ git+https://example.com/hello.git@0123\n",
    }


@pytest.mark.parametrize(
    "entry", ["-e .", "-e .[prod]", ".", ".[prod]", "./libs/tax", "../shared", "--editable ./x", "libs/tax"]
)
def test_folders(entry: str) -> None:
    assert requirements.is_folder(entry)


@pytest.mark.parametrize(
    "entry",
    [
        "django",
        "./wheels/tax-1.0-py3-none-any.whl",
        "wheels/tax-1.0.tar.gz",
        "-e git+https://example.com/hello.git#egg=hello",
        "hello @ https://example.com/hello.zip",
        "-r requirements/base.txt",
        "--find-links ./wheels",
    ],
)
def test_what_pip_can_install_without_the_project(entry: str) -> None:
    assert not requirements.is_folder(entry)


@pytest.mark.parametrize(
    ("name", "text", "copied"),
    [
        ("requirements.txt", "django\n", False),
        ("requirements.txt", "django\n-e .\n", True),
        ("requirements/base.txt", "./libs/tax\n", True),
        ("uv.lock", "", True),
    ],
)
def test_a_change_of_code_installs_nothing_again_unless_the_project_itself_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, copied: bool
) -> None:
    """The step that installs folders of the project sees a copy of it: an empty one stays the same."""
    for folder in ("FILES", "PROJECT", "FOLDERS"):
        monkeypatch.setattr(requirements, folder, tmp_path / folder)
    file = tmp_path / "FILES" / name
    file.parent.mkdir(parents=True)
    file.write_text(text)
    (tmp_path / "PROJECT").mkdir()
    (tmp_path / "PROJECT/manage.py").touch()
    requirements.copy_folders(file)
    assert [path.name for path in (tmp_path / "FOLDERS").iterdir()] == ["manage.py"] * copied
