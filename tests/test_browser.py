"""A real browser reports no error: home page and admin under the Content-Security-Policy."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from selenium.common.exceptions import WebDriverException
from selenium.webdriver import ActionChains, Remote
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.support.browser import browser, console
from tests.support.checkout import Checkout
from tests.support.stack import ROOT, free_port, wait_until
from tests.test_newcomer import SECRET, created

pytestmark = [pytest.mark.slow, pytest.mark.needs_sample]
ARTEFACTS = ROOT / "tests/artefacts"
VERBS = {"tcp": "up-tcp", "unix-socket": "up-unix"}


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
        (made.folder / "project.env").write_text("DJANGO_STACK_PAGE=1\n")
        made.made("up")
        created(made, "eve")
        yield made
    finally:
        made.remove()


@pytest.fixture(params=VERBS, scope="module")
def address(request: pytest.FixtureRequest, checkout: Checkout, driver: Remote) -> str:
    """The address of the stack over one transport; of the module, so that each transport is started once."""
    driver.get("about:blank")  # the page before would go on asking while the stack changes
    checkout.made(VERBS[request.param])
    return f"http://localhost:{checkout.environment['HTTP_PORT']}"


@pytest.fixture
def site(address: str, driver: Remote) -> str:
    """The same address, with a browser that has not been there."""
    driver.get("about:blank")
    driver.execute("executeCdpCommand", {"cmd": "Network.clearBrowserCookies", "params": {}})
    console(driver)
    return address


@pytest.fixture
def https_site(checkout: Checkout, driver: Remote) -> Iterator[str]:
    """The address of the stack over https, with a browser that accepts its self-signed certificate."""
    files = {"COMPOSE_FILE": "compose.yaml:compose.tcp.yaml:overrides/tls.yaml", "HTTPS_PORT": str(free_port())}
    driver.get("about:blank")
    checkout.environment |= files
    checkout.made("up-tcp")
    accept = {"cmd": "Security.setIgnoreCertificateErrors", "params": {"ignore": True}}
    driver.execute("executeCdpCommand", accept)
    console(driver)
    # Not localhost, for which the browser would insist on https from then on
    yield f"https://127.0.0.1:{files['HTTPS_PORT']}"
    driver.get("about:blank")
    driver.execute("executeCdpCommand", {**accept, "params": {"ignore": False}})
    for name in files:
        del checkout.environment[name]


def click(driver: Remote, selector: str) -> None:
    """Click on what a CSS selector finds, on a page that stays."""
    driver.find_element(By.CSS_SELECTOR, selector).click()


def follow(driver: Remote, selector: str) -> None:
    """Click on what leads to another page, and wait until that is there; the old one says it is complete, too."""
    driver.execute_script("window.isTheOldOne = true")
    click(driver, selector)
    there = "return window.isTheOldOne === undefined && document.readyState === 'complete'"

    def arrived() -> bool:
        try:
            return bool(driver.execute_script(there))
        except WebDriverException:  # between two pages
            return False

    wait_until(arrived, "the next page")


def test_home_page_works_without_a_word_in_the_console(site: str, driver: Remote) -> None:
    driver.get(site)
    assert driver.find_element(By.TAG_NAME, "h1").text == "It runs."
    click(driver, "#again")
    wait_until(lambda: "answered" in driver.find_element(By.ID, "said").text, "the answer of the button")
    assert console(driver) == []


def look(driver: Remote, scheme: str, width: int) -> None:
    """Have the browser prefer light or dark, and be so wide."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute("executeCdpCommand", {"cmd": "Emulation.setEmulatedMedia", "params": {"features": features}})
    size = {"width": width, "height": 1500, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute("executeCdpCommand", {"cmd": "Emulation.setDeviceMetricsOverride", "params": size})


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 360), ("dark", 360)])
def test_stack_page_is_for_everybody(site: str, driver: Remote, scheme: str, width: int) -> None:
    """Readable by axe's rules, light and dark, on a phone; nothing is cut off; a picture is kept of each."""
    look(driver, scheme, width)
    driver.get(site)
    wait_until(lambda: cells(driver), "the workers")
    driver.execute_script(AXE_SCRIPT)
    found = driver.execute_async_script("axe.run().then(arguments[0])")
    ARTEFACTS.mkdir(exist_ok=True)
    transport = driver.find_element(By.CSS_SELECTOR, "[data-key=transport]").text
    driver.save_screenshot(str(ARTEFACTS / f"stack-page-{transport}-{scheme}-{width}.png"))
    assert len(found["passes"]) > 20
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]] == []
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    assert console(driver) == []


def cells(driver: Remote) -> list[list[str]]:
    """Return the table of workers, read at one moment: the page replaces its rows."""
    rows: list[list[str]] = driver.execute_script(
        "return [...document.querySelectorAll('#workers tr')].map(row => [...row.cells].map(cell => cell.textContent))"
    )
    return rows


def test_stack_page_follows_the_workers(site: str, driver: Remote) -> None:
    look(driver, "light", 1280)
    driver.get(site)
    rows = wait_until(lambda: cells(driver), "the workers")
    assert len(rows) == 2
    assert re.fullmatch(r"\w{12} 1 (idle|busy) \d+ \d+ \d+(\.\d)? MB [\d.]+ ms \d+ (s|min)", " ".join(rows[0]))
    assert re.fullmatch(r"[12] of 2", driver.find_element(By.ID, "busy").text), "the one that answers is busy"
    assert re.fullmatch(r"[\d.]+ ms", driver.find_element(By.ID, "waited").text)

    def requests() -> int:
        return sum(int(row[3]) for row in cells(driver))

    before = requests()
    wait_until(lambda: requests() > before, "a fresh number, in place", 6)
    points = driver.find_element(By.CSS_SELECTOR, "#plot polyline").get_attribute("points")
    assert len(str(points).split()) > 1


def test_stack_page_can_be_stopped_from_the_keyboard(site: str, driver: Remote) -> None:
    driver.get(site)
    wait_until(lambda: cells(driver), "the workers")
    for _ in range(10):
        ActionChains(driver).send_keys(Keys.TAB).perform()
        if driver.switch_to.active_element.get_attribute("id") == "pause":
            break
    driver.switch_to.active_element.send_keys(Keys.SPACE)
    assert driver.find_element(By.ID, "pause").get_attribute("aria-pressed") == "true"
    assert driver.find_element(By.ID, "told").text == "Paused."


def test_admin_works_without_a_word_in_the_console(site: str, driver: Remote) -> None:
    """H37: logging in over a port of one's own; then its scripts, widgets and a form under the policy."""
    administer(site, driver)


def test_admin_works_over_https_without_a_word_in_the_console(https_site: str, driver: Remote) -> None:
    administer(https_site, driver)
    assert driver.execute_script("return performance.getEntriesByType('navigation')[0].nextHopProtocol") == "h2"
    cookies = {cookie["name"]: cookie["secure"] for cookie in driver.get_cookies()}
    assert cookies == {"csrftoken": True, "sessionid": True}


def administer(site: str, driver: Remote) -> None:
    """Log in, and have the admin change a user by its widgets."""
    driver.get(f"{site}/admin/")
    driver.find_element(By.NAME, "username").send_keys("eve")
    driver.find_element(By.NAME, "password").send_keys(SECRET)
    follow(driver, "input[type=submit]")
    assert "Site administration" in driver.title
    driver.get(f"{site}/admin/auth/user/")
    click(driver, "#action-toggle")
    assert "1 of 1 selected" in driver.find_element(By.CSS_SELECTOR, ".action-counter").text
    follow(driver, "th.field-username a")
    # Built by the admin's own scripts: two boxes to choose groups from, and a calendar
    assert driver.find_element(By.ID, "id_groups_from").is_displayed()
    click(driver, ".field-last_login .date-icon")
    days = driver.find_elements(By.CSS_SELECTOR, ".calendarbox td.selected a")
    next(day for day in days if day.is_displayed()).click()
    driver.find_element(By.NAME, "first_name").send_keys("Eve")
    follow(driver, "input[name=_save]")
    assert "was changed successfully" in driver.find_element(By.CSS_SELECTOR, ".messagelist").text
    click(driver, "button.theme-toggle")
    assert console(driver) == []


def test_the_console_would_tell_of_a_violation(site: str, driver: Remote) -> None:
    """Otherwise the tests above would pass because nothing is recorded."""
    driver.get(site)
    driver.execute_script(
        "const script = document.createElement('script'); script.textContent = '1'; document.body.append(script)"
    )
    messages = wait_until(lambda: console(driver), "the violation")
    assert "Content Security Policy" in " ".join(messages)
