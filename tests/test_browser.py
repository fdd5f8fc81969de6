"""A real browser finds nothing to complain of: home page and admin under the Content-Security-Policy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium.webdriver import Remote
from selenium.webdriver.common.by import By

from tests.browser import browser, console
from tests.checkout import Checkout
from tests.support import wait_until
from tests.test_newcomer import SECRET, created

pytestmark = pytest.mark.xdist_group("newcomer")
VERBS = {"tcp": "up", "unix-socket": "up-unix"}


@pytest.fixture(scope="module")
def driver() -> Iterator[Remote]:
    """The browser."""
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """A copy of this repository with the sample project, and somebody who may log in."""
    made = Checkout(tmp_path_factory.mktemp("browser"), "browser")
    try:
        made.made("up")
        created(made, "eve")
        yield made
    finally:
        made.remove()


@pytest.fixture(params=VERBS)
def site(request: pytest.FixtureRequest, checkout: Checkout, driver: Remote) -> str:
    """The address of the stack over one transport, with a browser that has not been there."""
    checkout.made(VERBS[request.param])
    driver.delete_all_cookies()
    return f"http://localhost:{checkout.environment['HTTP_PORT']}"


def click(driver: Remote, selector: str) -> None:
    """Click on what a CSS selector finds, and wait until the next page is there."""
    driver.find_element(By.CSS_SELECTOR, selector).click()
    wait_until(lambda: driver.execute_script("return document.readyState") == "complete", "the next page")


def test_home_page_works_without_a_word_in_the_console(site: str, driver: Remote) -> None:
    driver.get(site)
    assert driver.find_element(By.TAG_NAME, "h1").text == "It runs."
    click(driver, "#again")
    wait_until(lambda: "answered" in driver.find_element(By.ID, "said").text, "the answer of the button")
    assert console(driver) == []


def test_admin_works_without_a_word_in_the_console(site: str, driver: Remote) -> None:
    """H37: logging in over a port of one's own; then its scripts, widgets and a form under the policy."""
    driver.get(f"{site}/admin/")
    driver.find_element(By.NAME, "username").send_keys("eve")
    driver.find_element(By.NAME, "password").send_keys(SECRET)
    click(driver, "input[type=submit]")
    assert "Site administration" in driver.title
    driver.get(f"{site}/admin/auth/user/")
    click(driver, "#action-toggle")
    assert "1 of 1 selected" in driver.find_element(By.CSS_SELECTOR, ".action-counter").text
    click(driver, "th.field-username a")
    # Built by the admin's own scripts: two boxes to choose groups from, and a calendar
    assert driver.find_element(By.ID, "id_groups_from").is_displayed()
    click(driver, ".field-last_login .date-icon")
    days = driver.find_elements(By.CSS_SELECTOR, ".calendarbox td.selected a")
    next(day for day in days if day.is_displayed()).click()
    driver.find_element(By.NAME, "first_name").send_keys("Eve")
    click(driver, "input[name=_save]")
    assert "was changed successfully" in driver.find_element(By.CSS_SELECTOR, ".messagelist").text
    click(driver, "button.theme-toggle")
    assert console(driver) == []


def test_the_console_would_tell_of_a_violation(site: str, driver: Remote) -> None:
    """Or the tests above would pass because nobody listens."""
    driver.get(site)
    driver.execute_script(
        "const script = document.createElement('script'); script.textContent = '1'; document.body.append(script)"
    )
    said = wait_until(lambda: console(driver), "the violation")
    assert "Content Security Policy" in " ".join(said)
