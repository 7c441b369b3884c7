"""Explanations for pages, and a page as somebody sees and handles it in Chromium."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from benchmarks.browser import DRAWN, MISSING, wait_until
from pytorch_grad_cam.explanations.explanation import Explanation, Panel

SIZE = 64
HOSTILE = "</script><script>window.hostile = 1</script><img src=x onerror='window.hostile = 1'>&amp;\"'"
LEFT, UP, RIGHT, DOWN, SHIFT = "\ue012", "\ue013", "\ue014", "\ue015", "\ue008"


def in_browser(test):
    return pytest.mark.slow(pytest.mark.browser(pytest.mark.skipif(MISSING is not None, reason=str(MISSING))(test)))


def quadrants(*values):
    """Four flat quarters: top left, top right, bottom left, bottom right."""
    return np.float32(values).reshape(2, 2).repeat(SIZE // 2, axis=0).repeat(SIZE // 2, axis=1)


def spot(row, column):
    rows, columns = np.mgrid[:SIZE, :SIZE]
    return np.float32(np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 50))


PICTURE = np.stack([quadrants(200, 40, 90, 160), quadrants(30, 120, 220, 70), quadrants(80, 180, 20, 250)], -1)
PICTURE = PICTURE.astype(np.uint8)
LEVELS = quadrants(0.2, 0.8, 0.4, 1.0)
NAMES = ("cat", "dog", "bird")


def panels(methods=("GradCAM", "LayerCAM"), layers=("layer3", "layer4"), names=NAMES):
    places = [(10 + 7 * rank, 50 - 7 * rank) for rank in range(len(names))]
    probabilities = [0.75, 0.2, None]
    return [
        Panel(method, layer, 10 + rank, name, probabilities[rank], spot(*places[rank]))
        for method in methods
        for layer in layers
        for rank, name in enumerate(names)
    ]


def explanation(title="scene.png", made=None, picture=PICTURE, warnings=(), probabilities=(0.75, 0.2, 0.05), **others):
    """Of the classes cat, dog and bird; the warnings are those of all panels."""
    made = [panel._replace(warnings=(*panel.warnings, *warnings)) for panel in (panels() if made is None else made)]
    scores = np.float32(probabilities)
    versions = {"torch": "2.9", "numpy": "2"}
    return Explanation(title, picture, made, scores, scores, NAMES, list(warnings), versions, **others)


def flat(cam_map=LEVELS):
    return explanation(made=[Panel("GradCAM", "layer4", 1, "cat", 0.5, cam_map)])


def pixels(url):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))


class View:
    """The page as somebody sees and handles it."""

    def __init__(self, browser):
        self.browser = browser

    def find(self, selector):
        return self.browser.find_element("css selector", selector)

    def all(self, selector):
        return self.browser.find_elements("css selector", selector)

    def redrawn(self, act):
        before = self.browser.execute_script(DRAWN)
        act()
        wait_until(self.browser, lambda: self.browser.execute_script(DRAWN) > before)

    def press(self, *keys):
        self.browser.switch_to.active_element.send_keys(*keys)

    def click(self, group, text):
        (button,) = [button for button in self.all(f"#{group} button") if text in button.text]
        self.redrawn(button.click)

    def press_button(self, identity):
        self.redrawn(self.find(f"#{identity}").click)

    def choose(self, identity, text):
        from selenium.webdriver.support.select import Select

        Select(self.find(f"#{identity}")).select_by_visible_text(text)

    def pressed(self, group):
        (button,) = self.all(f"#{group} [aria-pressed='true']")
        return button.text.splitlines()[0]

    def chosen(self):
        return tuple(map(self.pressed, ("classes", "methods", "layers")))

    def drag(self, slider, to):
        """Move the thumb of the slider with the mouse to an end: 0 or 1."""
        from selenium.webdriver import ActionChains

        element = self.find(f"#{slider}")
        half = element.size["width"] // 2
        at = half * (2 * float(element.get_attribute("value")) - 1)
        chain = (
            ActionChains(self.browser, duration=20)
            .move_to_element_with_offset(element, round(0.93 * at), 0)
            .click_and_hold()
        )
        self.redrawn(chain.move_by_offset(round((2 * to - 1) * (half + 10) - 0.93 * at), 0).release().perform)
        assert float(element.get_attribute("value")) == to

    def set(self, slider, value):
        script = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))"
        self.redrawn(lambda: self.browser.execute_script(script, self.find(f"#{slider}"), value))

    def at(self, row, column, figure=0):
        """A chain of actions that begins with the mouse over a pixel of the picture."""
        from selenium.webdriver import ActionChains

        canvas = self.all("#stage canvas")[figure]
        width, height = canvas.size["width"], canvas.size["height"]
        across, down = (column + 0.5) / SIZE * width - width / 2, (row + 0.5) / SIZE * height - height / 2
        return ActionChains(self.browser, duration=20).move_to_element_with_offset(canvas, round(across), round(down))

    def point(self, row, column, figure=0):
        """Move the mouse to a pixel of the picture."""
        self.at(row, column, figure).perform()

    def canvas(self, figure=0):
        """What a figure shows, RGB."""
        script = "return document.querySelectorAll('#stage canvas')[arguments[0]].toDataURL()"
        return pixels(self.browser.execute_script(script, figure))[..., :3].astype(int)

    def corners(self, figure=0):
        """The colours in the middle of the four quarters."""
        shown = self.canvas(figure)
        height, width = (side // 4 for side in shown.shape[:2])
        return shown[height :: 2 * height, width :: 2 * width][:2, :2]

    def listed(self):
        """The titles in the list of images, as it is."""
        return [item.text for item in self.all("#images li") if item.is_displayed()]
