"""A setting lives in one place, and what is written about it is true."""

from __future__ import annotations

import configparser
import re
from typing import Any

import yaml

from ops import adopt
from ops.__main__ import parser
from tests.support.stack import ROOT, run

PAGES = (ROOT / "README.md", ROOT / "SECURITY.md", *(ROOT / "docs").rglob("*.md"))
COMPOSE_FILES = sorted([*ROOT.glob("compose*.yaml"), *ROOT.glob("overrides/*.yaml")])
# Read from the user's shell, not from .env: they belong to her machine.
OF_THE_MACHINE = {
    "DEV_UID",
    "DEV_GID",
    "SSL_CERT_FILE",
    "APT_MIRROR",
    "PIP_INDEX_URL",
    "COMPOSE_PROJECT_NAME",
    "RELEASE",
}


def example() -> dict[str, str]:
    """Return the settings of .env.example."""
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def defaults() -> dict[str, set[str]]:
    """Return each variable of the compose files with the defaults they give it."""
    found: dict[str, set[str]] = {}
    for file in COMPOSE_FILES:
        for name, default in re.findall(r"\$\{([A-Z_]+)(?::-([^}]*))?\}", file.read_text()):
            found.setdefault(name, set()).add(default)
    return found


def seconds(text: str) -> float:
    """Return a duration such as 40s or 35 in seconds."""
    return float(text.removesuffix("s"))


def nginx(directive: str) -> str:
    """Return the value of a directive in production, wherever it stands."""
    files = [file for file in (ROOT / "nginx").rglob("*.conf") if file.parent.name != "development"]
    text = "\n".join(file.read_text() for file in files)
    return str(re.findall(rf"^\s*{directive} ([^;]+);", text, re.MULTILINE)[0])


def uwsgi(option: str, file: str = "uwsgi/uwsgi.ini") -> int:
    """Return a number from a section [uwsgi]."""
    read = configparser.ConfigParser(strict=False, interpolation=None)
    read.read(ROOT / file)
    return int(read["uwsgi"][option])


def base() -> dict[str, Any]:
    """Return compose.yaml as it is written."""
    return dict(yaml.safe_load((ROOT / "compose.yaml").read_text())["services"])


def test_env_example_has_every_setting_with_its_default() -> None:
    documented = example()
    documented.pop("COMPOSE_FILE")
    used = {name: values for name, values in defaults().items() if name not in OF_THE_MACHINE}
    assert {name: {value} for name, value in documented.items()} == used


def test_every_setting_says_what_it_does() -> None:
    for block in (ROOT / ".env.example").read_text().split("\n\n"):
        assert block.startswith("# "), f"no comment above: {block.splitlines()[0]}"


def test_sample_project_reads_every_setting_it_is_given() -> None:
    code = (ROOT / "app/config/settings.py").read_text()
    given = base()["uwsgi"]["environment"]
    names = [name for name in given if given[name] and not name.startswith("UWSGI_")]
    assert [name for name in names if name not in code] == []


def test_adopt_knows_what_the_stack_tells_every_project() -> None:
    assert {*base()["uwsgi"]["environment"], "STATIC_ROOT"} == adopt.TOLD


def test_clocks_that_contain_each_other_are_in_order() -> None:
    grace = seconds(base()["uwsgi"]["stop_grace_period"])
    patience = seconds(nginx("uwsgi_read_timeout"))
    assert uwsgi("harakiri") < uwsgi("worker-reload-mercy") < grace
    assert uwsgi("harakiri") < patience < seconds(nginx("worker_shutdown_timeout"))
    drain = re.search(r"drain_seconds = (\d+);", (ROOT / "nginx/run-nginx.c").read_text())
    assert drain
    assert int(drain[1]) + seconds(nginx("worker_shutdown_timeout")) < seconds(base()["nginx"]["stop_grace_period"])
    sqlite = re.search(r'"timeout": (\d+)', (ROOT / "app/config/settings.py").read_text())
    assert sqlite
    assert int(sqlite[1]) < uwsgi("harakiri")


def test_what_nginx_lets_through_fits_into_uwsgi() -> None:
    number, size = nginx("large_client_header_buffers").split()
    # The address is sent up to three times: REQUEST_URI, PATH_INFO, QUERY_STRING.
    assert (int(number) + 2) * int(size.removesuffix("k")) * 1024 < uwsgi("buffer-size")
    assert int(nginx("max_headers")) + 30 < uwsgi("max-vars")


def test_queue_is_within_what_the_kernel_allows() -> None:
    for service in ("nginx-socket", "uwsgi-socket"):
        assert uwsgi("listen", f"sockets/{service}.ini") <= base()[service]["sysctls"]["net.core.somaxconn"]


def test_base_alone_is_refused_by_name() -> None:
    done = run("docker", "compose", "--env-file", "/dev/null", "--file", "compose.yaml", "config", "--quiet")
    assert done.returncode != 0
    # Compose names one of the two that lack it, now this, now that.
    assert re.search(r'service "(nginx|uwsgi-socket)" refers to undefined config \1-transport', done.stderr)


def test_overrides_stay_small_and_undo_nothing() -> None:
    for file in COMPOSE_FILES:
        if file.name != "compose.yaml":
            assert len(file.read_text().splitlines()) <= 40, file.name
            # Its purpose is to have nginx-socket leave its network.
            resets = ["networks: !reset []", "ports: !reset []", "sysctls: !reset {}"]
            resets *= file.name == "host-network.yaml"
            found = [line.strip() for line in file.read_text().splitlines() if "!reset" in line]
            assert found == resets, file.name
            assert "!override" not in file.read_text(), file.name


def test_each_transport_is_three_files_of_one_name() -> None:
    names = {
        "compose": {file.name.removeprefix("compose.").removesuffix(".yaml") for file in COMPOSE_FILES},
        "nginx": {file.stem for file in (ROOT / "nginx/transports").iterdir()},
        "sockets": {file.stem for file in (ROOT / "sockets/transports").iterdir()},
    }
    assert names["nginx"] == names["sockets"] == {"tcp", "unix-socket"} <= names["compose"]


def test_no_file_names_a_registry() -> None:
    hosts = re.compile(r"(docker\.io/|ghcr\.io|quay\.io|registry-1\.|pypi\.org|pythonhosted|deb\.debian\.org)")
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard").stdout.split()
    guilty = [
        name
        for name in listed
        if name != "tests/test_settings.py" and (ROOT / name).is_file() and hosts.search((ROOT / name).read_text())
    ]
    assert guilty == []


def test_every_verb_is_in_the_help_and_in_the_readme() -> None:
    verbs = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = set(re.findall(r"^  make ([a-z-]+) ", run("make").stdout, re.MULTILINE))
    assert shown == verbs
    pages = "\n".join(file.read_text() for file in PAGES)
    assert verbs - {"help"} - set(re.findall(r"make ([a-z-]+)", pages)) == set()
    unknown = set(re.findall(r"`make ([a-z-]+)", pages)) - verbs
    assert unknown == set()


def test_ops_refuses_a_transport_it_does_not_know() -> None:
    done = run("python3", "-m", "ops", "up", "pigeon")
    assert done.returncode == 2
    assert "invalid choice: 'pigeon' (choose from" in done.stderr
    assert parser().prog == "ops"


def test_map_in_the_readme_is_true() -> None:
    readme = (ROOT / "README.md").read_text()
    drawn = re.findall(r"^([a-z]+)/ ", readme, re.MULTILINE)
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard").stdout.split()
    assert set(drawn) == {name.split("/")[0] for name in listed if "/" in name and not name.startswith(".")}


def test_links_in_the_documentation_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_override_is_documented() -> None:
    pages = "\n".join(file.read_text() for file in PAGES)
    assert [file.name for file in COMPOSE_FILES if file.name not in pages] == []


def test_every_test_that_security_names_is_there() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "SECURITY.md").read_text()))
    assert {name for name in named if not (ROOT / f"tests/{name}.py").is_file()} == set()
