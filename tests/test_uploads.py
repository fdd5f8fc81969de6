"""What visitors have uploaded is served by nginx, as what it is: somebody else's."""

from __future__ import annotations

import pytest

from tests.support.stack import Stack

PAGE = b"<script>document.title = 'taken over'</script>"


@pytest.mark.parametrize("name", ["picture.svg", "page.html", "notes.txt"])
def test_an_upload_is_served_in_a_sandbox(stack: Stack, name: str) -> None:
    address = stack.post(f"/upload/{name}", PAGE).text
    answer = stack.get(address)
    assert (answer.status_code, answer.content) == (200, PAGE)
    assert answer.headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "public, max-age=300"


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
