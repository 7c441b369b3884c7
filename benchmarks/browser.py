"""A headless Chromium, Debian's packages chromium and chromium-driver, for pages in files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

SECONDS = 20
PROGRAMS = ("chromium", "chromedriver")
MISSING = None if all(map(shutil.which, PROGRAMS)) else "no Chromium here: apt-get install chromium chromium-driver"
DRAWN = "return performance.getEntriesByName('drawn').length"


@contextmanager
def chromium() -> Iterator[Chrome]:
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    program, driver = map(shutil.which, PROGRAMS)
    options = ChromeOptions()
    options.binary_location = program
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    for argument in ("--headless=new", "--disable-dev-shm-usage", "--window-size=1440,900"):
        options.add_argument(argument)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    browser = Chrome(options, ChromeService(driver))
    try:
        yield browser
    finally:
        browser.quit()


def open_page(browser: Chrome, page: Path, at: str = "") -> None:
    """Go to the page and wait until its first map is drawn. at: what is behind the # of the address."""
    browser.get(f"{page.resolve().as_uri()}{f'#{at}' if at else ''}")
    wait_until(browser, lambda: browser.execute_script(DRAWN) > 0)


def wait_until(browser: Chrome, true: Callable[[], bool]) -> None:
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(browser, SECONDS, poll_frequency=0.02).until(lambda _: true())
