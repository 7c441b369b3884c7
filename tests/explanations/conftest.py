import pytest
from pages import View

from benchmarks.browser import chromium, open_page
from pytorch_grad_cam.explanations.report import write_report


@pytest.fixture(scope="module")
def browser():
    with chromium() as driver:
        yield driver


@pytest.fixture
def opened(browser, tmp_path):
    """Open the page of some explanations; the colours are those of a light desktop, the window is wide."""

    def show(*explanations, width=1200, height=800, media="light", at=""):
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        features = [{"name": "prefers-color-scheme", "value": media}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        browser.get("about:blank")
        open_page(browser, write_report(explanations, tmp_path / "page.html"), at)
        return View(browser)

    return show
