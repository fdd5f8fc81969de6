"""Workers: threads, forks, memory, and where a request was when it was cut off."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.stack import Stack, wait_until

ChangedStack = Callable[[str], Stack]
PATHS = """
import getpass, os, pathlib, pwd, tempfile
print(getpass.getuser(), pathlib.Path.home(), os.environ["XDG_CACHE_HOME"], os.environ["MPLCONFIGDIR"])
for folder in (pathlib.Path.home(), pathlib.Path(os.environ["XDG_CACHE_HOME"]), pathlib.Path("/var/tmp/django_cache")):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "file").write_text("can be written")
"""


@pytest.mark.one_transport
def test_threads_and_fork_hooks_work_in_workers(stack: Stack) -> None:
    """Sentry warns at each start unless uwsgi.opt has both options."""
    assert stack.get("/forked").json() == {
        "hook": True,
        "thread of the master": False,
        "thread": ["ran"],
        "options": [True, True],
    }


@pytest.mark.one_transport
def test_threads_of_one_worker_answer_at_the_same_time(changed_stack: ChangedStack) -> None:
    stack = changed_stack("threads")
    began = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        codes = [answer.status_code for answer in pool.map(stack.get, ["/sleep/1500"] * 2)]
    assert (codes, time.monotonic() - began < 2.5) == ([200, 200], True)
    assert stack.get("/echo").json()["meta"]["REQUEST_METHOD"] == "GET"


@pytest.mark.one_transport
def test_bodies_and_tracebacks_are_whole_with_several_threads(changed_stack: ChangedStack) -> None:
    """Without post-buffering, a body that no view reads is read before the connection is closed."""
    stack = changed_stack("threads")
    body = b"x" * 3_000_000
    with ThreadPoolExecutor(4) as pool:
        answers = [*pool.map(lambda path: stack.post(path, body), ["/unread", "/echo"] * 10)]
    assert [answer.status_code for answer in answers] == [403, 200] * 10
    assert {answer.json()["length"] for answer in answers[1::2]} == {len(body)}
    with ThreadPoolExecutor(2) as pool:
        identifiers = [answer.headers["X-Request-ID"] for answer in pool.map(stack.get, ["/fail"] * 4)]
    log = stack.log("uwsgi")
    assert [log.count(f"request {one}: GET /fail\nTraceback") for one in identifiers] == [1] * 4


def test_the_log_names_the_function_that_hung(stack: Stack) -> None:
    """The time limit of the stack under test is 6 s."""
    assert stack.get("/sleep/30000").status_code == 502
    log = stack.log("uwsgi")
    assert "HARAKIRI" in log
    assert "filename = /app/probe/views.py" in log
    assert "function = sleep line = time.sleep(milliseconds / 1000)" in log
    wait_until(stack.serves, "both workers are back")


@pytest.mark.one_transport
def test_workers_that_leak_leave_between_requests(disposable_stack: Stack) -> None:
    """Without it, the kernel kills one at the limit of the container, in the middle of a request."""
    with ThreadPoolExecutor(2) as pool:
        answers = [*pool.map(disposable_stack.get, ["/leak/30"] * 60)]
    assert [answer.status_code for answer in answers] == [200] * 60
    assert len({answer.text for answer in answers}) > 2
    events = disposable_stack.exec("uwsgi", "sh", "-c", "cat /sys/fs/cgroup/memory.events 2>/dev/null || true")
    assert "oom_kill 0" in events or "oom_kill" not in events
    log = disposable_stack.log("uwsgi")
    assert "MB and leaves after this request" in log
    assert "killed by signal" not in log


@pytest.mark.one_transport
def test_homes_and_caches_can_be_written(stack: Stack) -> None:
    message = stack.exec("uwsgi", "python", "-c", PATHS)
    assert message.split() == ["uwsgi", "/tmp", "/tmp/.cache", "/tmp/.config/matplotlib"]


@pytest.mark.one_transport
def test_libraries_start_one_thread_in_each_worker(stack: Stack) -> None:
    """OpenBLAS starts one per core, and many cores times several workers exceed pids_limit."""
    message = stack.exec("uwsgi", "sh", "-c", "echo $OMP_NUM_THREADS $OPENBLAS_NUM_THREADS")
    assert message == "1 1\n"


@pytest.mark.slow
@pytest.mark.one_transport
def test_workers_can_import_the_project_each_for_itself(changed_stack: ChangedStack) -> None:
    """For libraries that do not survive a fork."""
    answer = changed_stack("lazy").get("/echo").json()
    assert answer["loaded_by"] == answer["pid"]
