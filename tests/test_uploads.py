"""What visitors have uploaded is served by nginx, as what it is: somebody else's."""

from __future__ import annotations

import pytest

from tests.support.stack import Stack

PAGE = b"<script>document.title = 'taken over'</script>"


@pytest.mark.parametrize("name", ["picture.svg", "page.html", "notes.txt"])
def test_an_upload_that_may_hold_a_script_is_served_in_a_sandbox(stack: Stack, name: str) -> None:
    address = stack.post(f"/upload/{name}", PAGE).text
    answer = stack.get(address)
    assert (answer.status_code, answer.content) == (200, PAGE)
    assert answer.headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "public, max-age=300"


@pytest.mark.parametrize("name", ["paper.pdf", "picture.png", "film.mp4", "letters.woff2"])
def test_an_upload_that_holds_no_script_is_shown_as_it_is(stack: Stack, name: str) -> None:
    """In a sandbox Safari shows an empty window instead of a PDF; in no frame could a page embed it."""
    answer = stack.get(stack.post(f"/upload/{name}", PAGE).text)
    assert not {"Content-Security-Policy", "X-Frame-Options"} & answer.headers.keys()
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("module.mjs", "text/javascript; charset=utf-8"),
        ("table.csv", "text/csv; charset=utf-8"),
        ("subtitles.vtt", "text/vtt; charset=utf-8"),
        ("letters.otf", "font/otf"),
    ],
)
def test_a_file_has_the_type_that_runserver_gives_it(stack: Stack, name: str, content_type: str) -> None:
    assert stack.get(stack.post(f"/upload/{name}", b"x").text).headers["Content-Type"] == content_type


def test_another_site_may_show_and_read_an_upload_and_a_static_file(stack: Stack) -> None:
    for address in (stack.post("/upload/cat.png", b"cat").text, "/static/probe/style.css"):
        headers = stack.get(address, headers={"Origin": "https://elsewhere.example"}).headers
        assert headers["Cross-Origin-Resource-Policy"] == "cross-origin", address
        assert headers["Access-Control-Allow-Origin"] == "*", address


def test_a_hidden_upload_is_not_served(stack: Stack) -> None:
    address = stack.post("/upload/.htaccess", b"secret").text
    answer = stack.get(address)
    assert answer.text == f"the project's own {address.removeprefix('/media/')}"
    assert "Content-Security-Policy" not in answer.headers


def test_an_upload_that_only_its_group_may_read_is_served(stack: Stack) -> None:
    """FILE_UPLOAD_PERMISSIONS = 0o640: nginx runs as another user."""
    address = stack.post("/upload/notes.txt", b"for the group").text
    stack.exec("uwsgi", "chmod", "0640", f"/data{address}")
    assert stack.get(address).content == b"for the group"


@pytest.mark.slow
def test_an_upload_is_served_while_uwsgi_is_stopped(disposable_stack: Stack) -> None:
    address = disposable_stack.post("/upload/notes.txt", b"kept").text
    disposable_stack("stop", "uwsgi", "uwsgi-socket")
    assert disposable_stack.get(address, timeout=5).content == b"kept"


def test_what_is_not_there_is_the_projects_to_answer(stack: Stack) -> None:
    assert stack.get("/media/made/on/demand.png").text == "the project's own made/on/demand.png"


@pytest.mark.slow
def test_an_upload_survives_a_new_container(disposable_stack: Stack) -> None:
    address = disposable_stack.post("/upload/notes.txt", b"kept").text
    disposable_stack("up", "--detach", "--wait", "--force-recreate")
    assert disposable_stack.get(address).content == b"kept"


def test_nginx_has_the_uploads_and_not_the_database(stack: Stack) -> None:
    mounts = {mount["Destination"]: mount["RW"] for mount in stack.container("nginx")["Mounts"]}
    assert mounts["/srv/media"] is False
    assert "/data" not in mounts
