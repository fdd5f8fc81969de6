"""What a user gets wrong: a non-zero exit, one message that names the fix, nothing half-started, no data lost."""

from __future__ import annotations

import copy
import errno
import json
import os
import platform
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ops import base_image, console, engine, preflight, settings
from ops import stack as ops_stack
from tests.support.checkout import Checkout
from tests.support.stack import ROOT, Stack, run
from tests.test_state import container

pytestmark = pytest.mark.needs_sample


@pytest.fixture(scope="module")
def shipped() -> dict[str, Any]:
    """The stack over TCP as Compose puts it together from the shipped files and the settings of .env.example."""
    files = ("--file", "compose.yaml", "--file", "compose.tcp.yaml")
    done = run("docker", "compose", "--env-file", ".env.example", *files, "config", "--format", "json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture
def config(shipped: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The same with a copy of the sample project, to break; nothing listens on its port."""
    changed = copy.deepcopy(shipped)
    app = shutil.copytree(ROOT / "app", tmp_path / "app")
    changed["services"]["uwsgi"]["build"]["additional_contexts"]["app"] = str(app)
    changed["services"]["nginx"]["ports"] = []
    key = tmp_path / "key"
    key.write_text("a key")
    changed["secrets"]["django_secret_key"]["file"] = str(key)
    return changed


def app_of(config: dict[str, Any]) -> Path:
    """Return the folder of the project."""
    return Path(config["services"]["uwsgi"]["build"]["additional_contexts"]["app"])


def refusal(config: dict[str, Any], service: str = "uwsgi", **settings: str) -> str:
    """Return what `make up` says before it changes anything, with these variables in a service's environment."""
    config["services"][service]["environment"] |= settings
    with pytest.raises(console.Stop) as stop:
        preflight.check(config)
    return str(stop.value)


def test_the_shipped_settings_are_not_refused(config: dict[str, Any]) -> None:
    preflight.check(config)


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    """A copy in which nothing has been started; whatever a test does there must leave it so."""
    made = Checkout(tmp_path, "bad-input")
    try:
        yield made
        assert made.containers() == [], "half-started"
    finally:
        made.remove()


def test_port_in_use(checkout: Checkout) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        message = checkout.refused("up", HTTP_PORT=str(port))
    assert f"127.0.0.1:{port} is in use by another program" in message
    assert f"HTTP_PORT={port + 1}" in message


@pytest.fixture
def bound_at(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """What is said of nginx at an address and port, where the machine refuses to bind it with this error."""
    # This checkout's own may run, as after the README's first command, and a port of one's own is no problem.
    monkeypatch.setattr(ops_stack, "containers", lambda *_: [])

    def message(address: str, port: int, error: int, **settings: Any) -> list[str]:
        monkeypatch.setattr(preflight, "refusal", lambda *_: error)
        monkeypatch.setattr(preflight, "answers", lambda *_: False)
        published = {"host_ip": address, "published": str(port), "target": 8080}
        return preflight.port_problems({"nginx": {"ports": [published], "environment": {}, **settings}})

    return message


def test_port_80_is_for_docker_to_bind_not_for_this_user(bound_at: Callable[..., list[str]]) -> None:
    """S2-6: Docker has root's rights, whichever user types make."""
    assert bound_at("0.0.0.0", 80, errno.EACCES) == []


def test_port_80_on_the_host_network_says_how_to_allow_it(bound_at: Callable[..., list[str]]) -> None:
    listen = {"network_mode": "host", "environment": {"NGINX_LISTEN": "127.0.0.1:80"}}
    assert "sysctl -w net.ipv4.ip_unprivileged_port_start=80" in bound_at("", 0, errno.EACCES, **listen)[0]


def test_a_mounted_file_that_is_missing_or_not_for_others(tmp_path: Path) -> None:
    """As CERTBOT_INI may name one."""
    own = tmp_path / "certbot.ini"
    assert preflight.mounted_file_problems([own]) == [
        f"{own} is missing. It is named in .env, or in a file of COMPOSE_FILE"
    ]
    own.touch(0o600)
    assert preflight.mounted_file_problems([own]) == [f"{own} cannot be read by others. Run: chmod o+r {own}"]
    own.chmod(0o604)
    assert preflight.mounted_file_problems([own]) == []


def test_a_network_that_would_keep_its_old_subnet_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose leaves it as it is, and nginx would not trust the proxy."""
    edge = {"edge": {"name": "shop_edge", "ipam": {"config": [{"subnet": "172.16.254.0/29"}]}}, "inside": {"name": "x"}}
    for there, problems in ((None, 0), ("172.16.254.0/29 ", 0), ("192.168.224.0/20 ", 1)):
        monkeypatch.setattr(preflight, "quiet", lambda _, there=there: there)
        found = preflight.subnet_problems(edge)
        assert len(found) == problems
        assert all("edge has the subnet 192.168.224.0/20" in line and "make down, then" in line for line in found)


def test_the_port_of_https_has_its_own_setting(bound_at: Callable[..., list[str]]) -> None:
    published = [{"host_ip": "127.0.0.1", "published": str(port), "target": port} for port in (8080, 8443)]
    message = bound_at("", 0, errno.EADDRINUSE, ports=published)
    assert ["HTTP_PORT=8081" in message[0], "HTTPS_PORT=8444" in message[1]] == [True, True]
    listen = {"HTTP_SOCKET": "127.0.0.1:80", "HTTPS_SOCKET": "127.0.0.1:443", "HTTPS": "1"}
    message = bound_at("", 0, errno.EADDRINUSE, network_mode="host", environment=listen)
    assert ["HTTP_PORT=81" in message[0], "HTTPS_PORT=444" in message[1]] == [True, True]


def test_http_and_https_on_one_port_are_refused(bound_at: Callable[..., list[str]]) -> None:
    published = [{"host_ip": "127.0.0.1", "published": "8443", "target": target} for target in (8080, 8443)]
    assert "HTTP_PORT and HTTPS_PORT in .env are both 8443" in bound_at("", 0, 0, ports=published)[0]


def test_an_address_of_another_machine(bound_at: Callable[..., list[str]]) -> None:
    assert "10.9.8.7 is not an address of this machine" in bound_at("10.9.8.7", 80, errno.EADDRNOTAVAIL)[0]


@pytest.mark.parametrize(
    ("held", "own"),
    [
        (("127.0.0.1", 8080), True),
        (("0.0.0.0", 8080), True),
        (("10.0.0.1", 8080), False),
        (("127.0.0.1", 8081), False),
    ],
)
def test_only_the_port_that_this_stack_has_now_is_not_looked_at(
    bound_at: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, held: tuple[str, int], own: bool
) -> None:
    monkeypatch.setattr(ops_stack, "containers", lambda *_: [container("nginx", bound=frozenset({held}))])
    assert (bound_at("127.0.0.1", 8080, errno.EADDRINUSE) == []) is own


def test_unknown_transport(checkout: Checkout) -> None:
    assert "Type make up-tcp, make up-unix or make up-direct." in checkout.refused("up-carrier-pigeon")


def test_unknown_compose_file(checkout: Checkout) -> None:
    checkout.set("COMPOSE_FILE", "compose.yaml:compose.tcp.yaml:compose.pigeon.yaml")
    message = checkout.refused("up")
    assert "Fix .env" in message
    assert "compose.pigeon.yaml" in message


@pytest.mark.parametrize("name", ["manage.py", "requirements.txt"])
def test_app_without_what_the_contract_asks_for(config: dict[str, Any], name: str) -> None:
    (app_of(config) / name).unlink()
    assert f"app/ has no {name}" in refusal(config)


def test_a_project_folder_that_is_not_there(config: dict[str, Any]) -> None:
    shutil.rmtree(app_of(config))
    assert "app is not a folder. Name the one of your project in .env: PROJECT_DIR=" in refusal(config)


def test_a_project_for_another_python(config: dict[str, Any]) -> None:
    (app_of(config) / "pyproject.toml").write_text('[project]\nrequires-python = ">=3.14"\n')
    message = refusal(config)
    assert "asks for Python >=3.14. This stack has 3.13. In .env: PYTHON_IMAGE=debian:forky-slim" in message
    config["services"]["uwsgi"]["build"]["args"]["BASE_IMAGE"] = "debian:forky-slim"
    preflight.check(config)


def test_wsgi_module_that_is_not_there(config: dict[str, Any]) -> None:
    config["services"]["uwsgi"]["build"]["args"]["UWSGI_MODULE"] = "mysite.wsgi"
    message = refusal(config)
    assert "app/ has no module mysite.wsgi. Set it in .env: UWSGI_MODULE=config.wsgi:application" in message


def test_wsgi_module_that_does_not_import(checkout: Checkout) -> None:
    with (checkout.folder / "app/config/wsgi.py").open("a") as module:
        module.write("\nimport nothing_of_that_name\n")
    message = checkout.refused("up")
    assert "UWSGI_MODULE config.wsgi: ModuleNotFoundError: No module named 'nothing_of_that_name'" in message


@pytest.mark.slow
def test_wsgi_module_without_the_callable(checkout: Checkout) -> None:
    message = checkout.refused("up", UWSGI_MODULE="config.wsgi:app")
    assert "has no callable `app`. In .env: UWSGI_MODULE=config.wsgi:application" in message


@pytest.mark.slow
def test_addresses_that_do_not_import(checkout: Checkout) -> None:
    with (checkout.folder / "app/config/urls.py").open("a") as module:
        module.write("\nimport nothing_of_that_name\n")
    message = checkout.refused("up")
    assert "manage.py check" in message
    assert "No module named 'nothing_of_that_name'" in message


@pytest.mark.slow
def test_requirement_that_does_not_exist(checkout: Checkout) -> None:
    (checkout.folder / "app/requirements.txt").write_text("django-uwsgi-nginx-no-such-thing==1.0\n")
    message = checkout.refused("up")
    assert "No matching distribution found for django-uwsgi-nginx-no-such-thing==1.0" in message
    assert "Nothing was changed" in message


def test_a_failed_build_shows_the_end_of_the_step_that_failed() -> None:
    output = (
        "#7 [uwsgi 2/9] RUN one\n#7 0.1 fine\n#8 [uwsgi 3/9] RUN pip\n#8 12.3 error: subprocess failed\n"
        "#7 DONE 0.2s\n#8 12.4       /bin/sh: 1: pkg-config: not found\n#8 12.4 \n#8 ERROR: exit code: 1\n------\n"
    )
    lines = ["[uwsgi 3/9] RUN pip", "error: subprocess failed", "      /bin/sh: 1: pkg-config: not found", ""]
    assert ops_stack.failed_step(output).splitlines() == [*lines, "ERROR: exit code: 1"]
    assert ops_stack.failed_step("no builder\n") == "no builder"


@pytest.mark.parametrize("processes", ["0", "abc", "-1", "1.5", "02"])
def test_number_of_workers(config: dict[str, Any], processes: str) -> None:
    message = refusal(config, UWSGI_PROCESSES=processes)
    assert f"UWSGI_PROCESSES has '{processes}', not a number from 1. Set it in .env: UWSGI_PROCESSES=2" in message


def test_number_of_threads(config: dict[str, Any]) -> None:
    """uwsgi.ini compares it as text: with 01, requests whose body no one reads would be cut off."""
    assert "UWSGI_THREADS has '01', not a number from 1" in refusal(config, UWSGI_THREADS="01")


@pytest.mark.parametrize("hosts", ["*", "https://example.com", "example.com:8080", "a b", "a, b", "a;b"])
def test_host_names(config: dict[str, Any], hosts: str) -> None:
    assert "not a host name" in refusal(config, DJANGO_ALLOWED_HOSTS=hosts)


@pytest.mark.parametrize(
    ("proxies", "message"),
    [
        ("10.0.0.300", "'10.0.0.300' does not appear to be an IPv4 or IPv6 network"),
        ("10.0.0.1/8", "10.0.0.1/8 has host bits set"),
        ("10.0.0.5,proxy.example", "'proxy.example' does not appear to be"),
        ("0.0.0.0/0", "every client could forge its address"),
        ("::/0", "every client could forge its address"),
    ],
)
def test_trusted_proxies(config: dict[str, Any], proxies: str, message: str) -> None:
    assert message in refusal(config, "nginx", NGINX_TRUSTED_PROXIES=proxies)


@pytest.mark.parametrize("line", ["libpq5; rm -rf /", "--force-yes", "build:", "Libpq5", "$(id)"])
def test_apt_packages(config: dict[str, Any], line: str) -> None:
    (app_of(config) / "apt-packages.txt").write_text(f"# a comment\n\nlibpq5\n{line}\n")
    message = refusal(config)
    assert f"app/apt-packages.txt, line 4: {line!r} is not a package name. Write libpq5, or build: libpq-dev" in message


def test_variables_of_the_stack_in_project_env(monkeypatch: pytest.MonkeyPatch, config: dict[str, Any]) -> None:
    names = frozenset({"DATABASE_URL", "TRANSPORT", "UWSGI_INI", "OWN"})
    monkeypatch.setattr(ops_stack, "settings", lambda: ops_stack.Settings(variables=names))
    message = refusal(config)
    assert (
        "project.env sets DATABASE_URL, which the stack itself sets for every project. Move the line to .env" in message
    )
    assert "project.env sets TRANSPORT, which the stack itself sets for every project. Remove the line" in message
    assert "project.env sets UWSGI_INI: uWSGI takes every name that begins with UWSGI_ for an option" in message
    assert "OWN" not in message


@pytest.mark.parametrize("line", ["WORD=pa$word", 'WORD="pa$word"', "export WORD=${word}#x", "BUILD_COMMAND=cd $HOME"])
def test_a_dollar_that_would_be_lost(tmp_path: Path, line: str) -> None:
    file = tmp_path / "project.env"
    file.write_text(f"# $word\n{line}\n")
    (problem,) = preflight.dollar_problems(file, frozenset())
    assert re.match(r"project.env, line 2: in [A-Z_]+, \$(word|HOME) would be replaced", problem)


@pytest.mark.parametrize(
    "line", ["WORD='pa$word'", "WORD=pa\\$word", "WORD=pa$$word", "A=1\nWORD=$A", "WORD=$HOME", "WORD=#x"]
)
def test_a_dollar_that_is_kept_or_meant(tmp_path: Path, line: str) -> None:
    file = tmp_path / "project.env"
    file.write_text(f"{line}\n")
    assert preflight.dollar_problems(file, frozenset()) == []


def test_the_build_gets_what_the_containers_get(config: dict[str, Any]) -> None:
    config["services"]["uwsgi"]["environment"] = {"WORD": "pa$$word", "LINES": "a\nb", "UNSET": None}
    environment = ops_stack.build_environment(config)
    assert json.loads(environment["BUILD_ENVIRONMENT"]) == {"WORD": "pa$word", "LINES": "a\nb", "UNSET": None}
    digest = environment["ENVIRONMENT_DIGEST"]
    config["services"]["uwsgi"]["environment"]["WORD"] = "another"
    assert ops_stack.build_environment(config)["ENVIRONMENT_DIGEST"] != digest


@pytest.mark.parametrize("rate", ["50", "0r/s", "fast", "50r/s burst=9"])
def test_rates(config: dict[str, Any], rate: str) -> None:
    assert "NGINX_REQUEST_RATE=50r/s" in refusal(config, "nginx", NGINX_REQUEST_RATE=rate)


@pytest.mark.parametrize(
    ("name", "value", "proposal"),
    [
        *(("UPLOAD_MAX", value, "UPLOAD_MAX=10m") for value in ("10MB", "0", "-1", "1.5g", "10m;")),
        *(("REQUEST_SECONDS", value, "REQUEST_SECONDS=30") for value in ("30s", "0", "1m", "0x1e")),
        *(("NGINX_GZIP", value, "NGINX_GZIP=on") for value in ("1", "yes", "off;")),
    ],
)
def test_limits(config: dict[str, Any], name: str, value: str, proposal: str) -> None:
    assert proposal in refusal(config, "nginx", **{name: value})


def test_empty_secret_is_not_replaced_behind_ones_back(checkout: Checkout) -> None:
    key = checkout.folder / "secrets/django_secret_key"
    key.parent.mkdir(mode=0o700)
    key.write_text("\n")
    assert "secrets/django_secret_key is empty. Put your key back, or have a new one made: rm" in checkout.refused("up")
    assert key.read_text() == "\n"


def test_missing_secret_is_made(tmp_path: Path) -> None:
    shutil.copy2(ROOT / ".env.example", tmp_path / ".env.example")
    settings.ensure(tmp_path)
    first = (tmp_path / settings.KEY).read_text()
    settings.ensure(tmp_path)
    assert (tmp_path / settings.KEY).read_text() == first


def test_all_problems_are_said_at_once(checkout: Checkout) -> None:
    (checkout.folder / "app/manage.py").unlink()
    message = checkout.refused("up", UWSGI_PROCESSES="0", DJANGO_ALLOWED_HOSTS="*")
    assert message.count("\n  - ") == 3


def test_files_that_containers_may_not_read(config: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "tcp.conf"
    file.touch(mode=0o600)
    config["configs"]["nginx-transport"]["file"] = str(file)
    assert f"Run: chmod o+r {file}" in refusal(config)


@pytest.mark.slow
def test_broken_code_leaves_what_runs_alone(checkout: Checkout) -> None:
    checkout.made("up")
    before = checkout.containers()
    module = checkout.folder / "app/config/wsgi.py"
    module.write_text("raise RuntimeError('broken release')\n")
    assert "RuntimeError: broken release" in checkout.refused("up")
    assert checkout.containers() == before
    assert checkout.get("/api/request").status_code == 200
    checkout.made("down")


@pytest.mark.slow
def test_a_start_that_fails_shows_the_last_words(checkout: Checkout) -> None:
    (checkout.folder / "uwsgi/uwsgi.ini").write_text(
        (checkout.folder / "uwsgi/uwsgi.ini").read_text().replace("master = true", "master = true\nmastre = true", 1)
    )
    message = checkout.refused("up")
    assert "uWSGI does not start with uwsgi/uwsgi.ini" in message
    assert "[strict-mode] unknown config directive: mastre" in message


def test_a_disk_without_room(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=200_000_000))
    problems = preflight.disk_problems()
    assert len(problems) == 1
    assert "0.2 GB left" in problems[0]
    assert "docker builder prune" in problems[0]


@pytest.mark.slow
@pytest.mark.one_transport
def test_no_docker_and_no_root(stack: Stack) -> None:
    """In a container of the stack's own image: Debian 13, Python, no Docker, an ordinary user."""
    image = stack.container("uwsgi")["Config"]["Image"]
    done = run(
        "docker",
        "run",
        "--rm",
        "--user",
        "1000",
        "--volume",
        f"{ROOT}:/stack:ro",
        "--env",
        "PYTHONDONTWRITEBYTECODE=1",
        "--entrypoint",
        "/stack/ops/run",
        image,
        "setup",
    )
    assert done.returncode != 0
    assert "Docker Engine 26.1 or newer (found: no answer)" in done.stderr
    assert "apt-get install --yes --no-remove --no-install-recommends ca-certificates iptables" in done.stderr


def test_no_python_and_no_root() -> None:
    image = base_image.name()
    mount = f"{ROOT}:/stack:ro"
    done = run("docker", "run", "--rm", "--user", "1000", "--volume", mount, image, "/stack/ops/run", "setup")
    assert done.returncode != 0
    assert done.stderr.strip() == "python3 is missing. Run: sudo apt-get update && sudo apt-get install python3"


def test_python_that_is_too_old(tmp_path: Path) -> None:
    python = tmp_path / "python3"
    python.write_text('#!/bin/sh\n[ "$1" != --version ] || echo Python 3.9.2\nexit 1\n')
    python.chmod(0o755)
    done = run("ops/run", "setup", environment={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert done.returncode == 1
    assert "python3 is Python 3.9.2, and this needs 3.11 or newer. Install a newer one" in done.stderr


@pytest.mark.parametrize(
    ("release", "message"),
    [
        ({"ID": "debian", "VERSION_ID": "12", "VERSION_CODENAME": "bookworm"}, "Suites: trixie"),
        ({"ID": "debian", "VERSION_ID": "13", "VERSION_CODENAME": "trixie"}, "docker-compose"),
        ({"ID": "ubuntu", "VERSION_ID": "24.04", "VERSION_CODENAME": "noble"}, "docker-compose-v2"),
        ({"ID": "debian", "VERSION_ID": "11", "VERSION_CODENAME": "bullseye"}, "neither Debian 12 or newer nor Ubuntu"),
        ({"ID": "fedora", "VERSION_ID": "44"}, "neither Debian 12 or newer nor Ubuntu"),
    ],
)
def test_what_to_type_where_docker_may_not_be_installed(
    monkeypatch: pytest.MonkeyPatch, release: dict[str, str], message: str
) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(engine, "version", lambda _: None)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: release)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "access", lambda *_: True)
    monkeypatch.setattr(engine, "install", lambda: pytest.fail("changed something"))
    with pytest.raises(console.Stop, match=message):
        engine.ensure()


def test_docker_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"Docker Engine": (20, 10, 24), "Compose": None, "Buildx": (0, 13, 1)}
    monkeypatch.setattr(engine, "version", found.get)
    assert engine.lacking() == [
        "Docker Engine 26.1 or newer (found: 20.10.24)",
        "Compose 2.26 or newer (found: no answer)",
    ]


@pytest.mark.parametrize(
    ("installed", "package", "message"),
    [
        (
            {"Docker Engine": (28, 0), "Compose": (2, 40), "Buildx": None},
            "docker.io",
            "apt-get install .*docker-buildx",
        ),
        ({"Docker Engine": (25, 0), "Compose": (2, 24), "Buildx": (0, 12)}, None, "as Docker's own documentation says"),
        # Stopped, and without Compose
        ({"Docker Engine": None, "Compose": None, "Buildx": (0, 13)}, None, "as Docker's own documentation says"),
    ],
)
def test_an_engine_that_is_installed_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, installed: dict[str, tuple[int, ...] | None], package: str | None, message: str
) -> None:
    """An update stops every container of the machine; that of another vendor's packages removes them."""
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(engine, "version", installed.get)
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/dockerd")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(engine, "quiet", lambda command: package if "dpkg-query" in command else "Docker version 25")
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"ID": "debian", "VERSION_ID": "13"})
    for change in ("install", "start"):
        monkeypatch.setattr(engine, change, lambda: pytest.fail("changed something"))
    with pytest.raises(console.Stop, match=f"(?s)Docker is installed, .*{message}"):
        engine.ensure()


def test_podman_is_not_taken_for_docker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(engine, "version", lambda _: (5, 4))
    monkeypatch.setattr(engine, "quiet", lambda _: "podman version 5.4.2")
    monkeypatch.setattr(engine, "install", lambda: pytest.fail("changed something"))
    with pytest.raises(console.Stop, match="is Podman on this machine"):
        engine.ensure()


def test_nothing_is_removed_to_install_docker() -> None:
    for command in (engine.DEBIAN, engine.UBUNTU):
        assert "--no-remove" in command
