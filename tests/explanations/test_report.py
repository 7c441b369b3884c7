"""The page of maps: what is in the file, and what a headless Chromium shows and does with it."""

import base64
import io
import json
import re
import weakref
from html.parser import HTMLParser
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from PIL import Image

from benchmarks.browser import DRAWN, MISSING, chromium, open_page, wait_until
from pytorch_grad_cam.explanations.explanation import Panel
from pytorch_grad_cam.explanations.report import write_report
from pytorch_grad_cam.utils.image import show_cam_on_image

SIZE = 64
HOSTILE = "</script><script>window.hostile = 1</script><img src=x onerror='window.hostile = 1'>&amp;\"'"
COLOUR_MAPS = {"jet": cv2.COLORMAP_JET, "viridis": cv2.COLORMAP_VIRIDIS, "magma": cv2.COLORMAP_MAGMA}


def in_browser(test):
    return pytest.mark.slow(pytest.mark.browser(pytest.mark.skipif(MISSING is not None, reason=str(MISSING))(test)))


class Explanation(NamedTuple):
    title: str
    picture: np.ndarray
    panels: list
    warnings: list
    versions: dict
    assumptions: tuple = ()


def quadrants(*values):
    """Four flat quarters: top left, top right, bottom left, bottom right."""
    return np.float32(values).reshape(2, 2).repeat(SIZE // 2, axis=0).repeat(SIZE // 2, axis=1)


def spot(row, column):
    rows, columns = np.mgrid[:SIZE, :SIZE]
    return np.float32(np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 50))


PICTURE = np.stack([quadrants(200, 40, 90, 160), quadrants(30, 120, 220, 70), quadrants(80, 180, 20, 250)], -1)
PICTURE = PICTURE.astype(np.uint8)
LEVELS = quadrants(0.2, 0.8, 0.4, 1.0)


def panels(methods=("GradCAM", "LayerCAM"), layers=("layer3", "layer4"), names=("cat", "dog", "bird")):
    places = [(10 + 7 * rank, 50 - 7 * rank) for rank in range(len(names))]
    probabilities = [0.75, 0.2, None]
    return [
        Panel(method, layer, 10 + rank, name, probabilities[rank], spot(*places[rank]))
        for method in methods
        for layer in layers
        for rank, name in enumerate(names)
    ]


def explanation(title="scene.png", made=None, picture=PICTURE, warnings=()):
    return Explanation(
        title, picture, panels() if made is None else made, list(warnings), {"torch": "2.9", "numpy": "2"}
    )


def flat(cam_map=LEVELS):
    return explanation(made=[Panel("GradCAM", "layer4", 1, "cat", 0.5, cam_map)])


class Page(HTMLParser):
    """The elements, the texts, and the JSON blocks of a file."""

    def __init__(self, file):
        super().__init__()
        self.elements, self.texts, self.blocks = [], [], []
        self.feed(file.read_text())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, text):
        if self.elements and self.elements[-1] == ("script", {"type": "application/json"}):
            self.blocks.append(json.loads(text))
            self.elements.append(("", {}))
        self.texts.append(text.strip())


def pixels(url):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))


def test_the_file_holds_all(tmp_path):
    made = [*panels(), Panel("EigenCAM", "layer4", None, "", float("nan"), LEVELS)]
    file = write_report([explanation(made=made, warnings=["no evidence"])], str(tmp_path / "new" / "page.html"))
    assert file == tmp_path / "new" / "page.html"
    (block,) = Page(file).blocks
    assert (block["width"], block["height"]) == (SIZE, SIZE)
    assert np.abs(pixels(block["picture"]).astype(int) - PICTURE)[4:28, 4:28].max() <= 4
    assert block["warnings"] == ["no evidence"]
    assert block["versions"] == {"torch": "2.9", "numpy": "2"}
    for panel, kept in zip(made, block["panels"], strict=True):
        np.testing.assert_array_equal(pixels(kept["map"]), np.rint(255 * panel.map))
        assert [kept[key] for key in ("method", "layer", "category", "name")] == list(panel[:4])
    assert [kept["probability"] for kept in block["panels"][:3]] == [0.75, 0.2, None]
    assert block["panels"][-1]["probability"] is None


def test_fine_lines_keep_their_colours(tmp_path):
    picture = np.full((SIZE, SIZE, 3), (40, 40, 40), np.uint8)
    picture[:, ::2, 0] = picture[:, 1::2, 1] = 200
    (block,) = Page(write_report([explanation(picture=picture)], tmp_path / "page.html")).blocks
    assert np.abs(pixels(block["picture"]).astype(int) - picture).mean() < 5


def test_numbers_of_numpy(tmp_path):
    panel = Panel("GradCAM", "layer4", np.int64(3), "cat", np.float32(0.5), LEVELS)
    (block,) = Page(write_report([explanation(made=[panel])], tmp_path / "page.html")).blocks
    assert (block["panels"][0]["category"], block["panels"][0]["probability"]) == (3, 0.5)


def test_texts_are_escaped(tmp_path):
    hostile = Panel(HOSTILE, HOSTILE, 1, HOSTILE, 0.5, LEVELS)
    file = write_report([explanation(HOSTILE, [hostile], warnings=[HOSTILE])], tmp_path / "page.html")
    page = Page(file)
    assert [tag for tag, _ in page.elements].count("script") == 3
    assert [tag for tag, _ in page.elements].count("img") == 1
    assert HOSTILE in page.texts
    assert page.blocks[0]["panels"][0]["name"] == HOSTILE
    assert page.blocks[0]["warnings"] == [HOSTILE]


def test_no_address_of_a_network_is_in_the_file(tmp_path):
    text = write_report([explanation()], tmp_path / "page.html").read_text()
    assert not re.search(r"https?:|//[a-z]+\.|url\(|@import", re.sub('base64,[^"]*', "", text))
    assert "default-src 'none'" in text


def test_names_that_are_no_unicode(tmp_path):
    file = write_report([explanation("photo\udcff.png")], tmp_path / "page.html")
    assert "photo\\udcff.png" in file.read_text()


def test_images_without_a_name_are_numbered(tmp_path):
    texts = Page(write_report([explanation(""), explanation("")], tmp_path / "page.html")).texts
    assert "Image 1" in texts
    assert "Image 2" in texts


def test_a_generator_is_never_in_memory_as_a_whole(tmp_path):
    pictures, alive = [], []

    def made():
        for _ in range(20):
            alive.append(sum(picture() is not None for picture in pictures))
            picture = PICTURE.copy()
            pictures.append(weakref.ref(picture))
            yield explanation(picture=picture)
            del picture

    write_report(made(), tmp_path / "page.html")
    assert len(pictures) == 20
    assert max(alive) <= 2


@pytest.mark.parametrize(
    ("explanations", "message"),
    [
        ([], "no explanations"),
        ([explanation(made=[])], "scene.png has no panels"),
        ([flat(LEVELS[:8])], r"scene.png by GradCAM has shape \(8, 64\).*expected \(64, 64\)"),
        ([flat(2 * LEVELS)], "values from 0.4 to 2, expected"),
        ([flat(np.full((SIZE, SIZE), np.nan, np.float32))], "values from nan to nan"),
    ],
)
def test_what_cannot_be_shown(explanations, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write_report(explanations, tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_could_not_be_finished_leaves_the_old_one(tmp_path):
    file = tmp_path / "page.html"
    file.write_text("old")
    with pytest.raises(ValueError, match="no panels"):
        write_report([explanation(), explanation(made=[])], file)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
    write_report([explanation()], file)
    assert "scene.png" in file.read_text()


@pytest.fixture(scope="module")
def browser():
    with chromium() as driver:
        yield driver


@pytest.fixture
def opened(browser, tmp_path):
    """Open the page of some explanations; the colours are those of a light desktop, the window is wide."""

    def show(*explanations, width=1200, height=800, media="light"):
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        features = [{"name": "prefers-color-scheme", "value": media}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        open_page(browser, write_report(explanations, tmp_path / "page.html"))
        return View(browser)

    return show


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

    def point(self, row, column):
        """Move the mouse to a pixel of the picture."""
        from selenium.webdriver import ActionChains

        canvas = self.find("canvas")
        width, height = canvas.size["width"], canvas.size["height"]
        across, down = (column + 0.5) / SIZE * width - width / 2, (row + 0.5) / SIZE * height - height / 2
        ActionChains(self.browser, duration=20).move_to_element_with_offset(
            canvas, round(across), round(down)
        ).perform()

    def canvas(self):
        """What the canvas shows, RGB."""
        url = self.browser.execute_script("return document.querySelector('canvas').toDataURL()")
        return pixels(url)[..., :3].astype(int)

    def corners(self):
        """The colours in the middle of the four quarters."""
        shown = self.canvas()
        height, width = (side // 4 for side in shown.shape[:2])
        return shown[height :: 2 * height, width :: 2 * width][:2, :2]


@in_browser
def test_opacity(opened):
    view = opened(flat())
    quarters = PICTURE[16::32, 16::32].astype(int)
    blended = show_cam_on_image(PICTURE, LEVELS, use_rgb=True)[16::32, 16::32]
    assert np.abs(view.corners() - blended).max() <= 5
    view.drag("opacity", 0)
    assert np.abs(view.corners() - quarters).max() <= 4
    view.drag("opacity", 1)
    for name, colour_map in COLOUR_MAPS.items():
        view.click("colour-maps", name)
        levels = np.rint(255 * LEVELS[16::32, 16::32]).astype(np.uint8)
        np.testing.assert_array_equal(view.corners(), cv2.applyColorMap(levels, colour_map)[..., ::-1])
    view.click("colour-maps", "grey")
    np.testing.assert_array_equal(view.corners(), np.repeat(levels[..., None], 3, axis=2))


@in_browser
def test_threshold(opened):
    view = opened(flat())
    view.drag("opacity", 1)
    everywhere = view.corners()
    view.set("threshold", 0.5)
    quarters = PICTURE[16::32, 16::32].astype(int)
    assert np.abs(view.corners() - quarters)[:, 0].max() <= 4, "0.2 and 0.4 are hidden"
    np.testing.assert_array_equal(view.corners()[:, 1], everywhere[:, 1])
    view.drag("threshold", 1)
    np.testing.assert_array_equal(view.corners()[1, 1], everywhere[1, 1])
    assert np.abs(view.corners() - quarters)[0].max() <= 4
    view.drag("threshold", 0)
    np.testing.assert_array_equal(view.corners(), everywhere)


@in_browser
def test_maps_are_in_their_place_and_smooth(opened):
    view = opened(explanation())
    view.drag("opacity", 1)
    view.click("colour-maps", "grey")
    for name, (row, column) in {"cat": (10, 50), "dog": (17, 43), "bird": (24, 36)}.items():
        view.click("classes", name)
        shown = view.canvas()[..., 0]
        factor = shown.shape[0] / SIZE
        assert factor > 8
        place = np.argwhere(shown == shown.max()).mean(axis=0) / factor - 0.5
        np.testing.assert_allclose(place, (row, column), atol=0.6)
        assert np.abs(np.diff(shown, axis=1)).max() <= 6
        assert np.abs(np.diff(shown, axis=0)).max() <= 6


@in_browser
@pytest.mark.parametrize("shape", [(64, 200), (200, 64), (700, 1600), (1, 1)])
def test_pictures_of_any_shape_are_shown_whole(opened, shape):
    picture = np.full((*shape, 3), 128, np.uint8)
    view = opened(
        explanation(made=[Panel("GradCAM", "layer4", 1, "cat", 1, np.zeros(shape, np.float32))], picture=picture)
    )
    canvas, stage = view.find("canvas").rect, view.find("#stage").rect
    assert stage["x"] <= canvas["x"]
    assert stage["y"] <= canvas["y"]
    assert canvas["x"] + canvas["width"] <= stage["x"] + stage["width"] + 1
    assert canvas["y"] + canvas["height"] <= stage["y"] + stage["height"] + 1
    assert canvas["width"] / canvas["height"] == pytest.approx(shape[1] / shape[0], rel=0.02)
    assert max(canvas["width"] / stage["width"], canvas["height"] / stage["height"]) > 0.9


@in_browser
def test_value_under_the_pointer(opened):
    view = opened(explanation())
    assert view.find("#value").text == "highest: 1.00 at x 50, y 10"
    for row, column in ((10, 50), (12, 45), (60, 5)):
        view.point(row, column)
        assert view.find("#value").text == f"{spot(10, 50)[row, column]:.2f} at x {column}, y {row}"
    view.point(17, 43)
    view.redrawn(lambda: view.press("\ue015"))
    assert view.find("#value").text == "1.00 at x 43, y 17", "of the map that is shown now"


@in_browser
def test_buttons(opened):
    view = opened(explanation())
    assert view.chosen() == ("cat", "GradCAM", "layer3")
    view.click("classes", "dog")
    view.click("methods", "LayerCAM")
    view.click("layers", "layer4")
    assert view.chosen() == ("dog", "LayerCAM", "layer4")
    assert view.find("#caption").text == "dog, 20.0%, LayerCAM, layer4"
    assert view.find("#versions").text == "torch 2.9, numpy 2"


@in_browser
def test_a_method_without_classes_or_layers_of_the_others(opened):
    others = [Panel("EigenCAM", "norm", None, "", None, LEVELS), Panel("FullGrad", "", 11, "dog", None, LEVELS)]
    view = opened(explanation(made=[*panels(), *others]))
    view.click("classes", "dog")
    view.click("methods", "EigenCAM")
    assert view.chosen() == ("No class", "EigenCAM", "norm")
    view.click("methods", "LayerCAM")
    assert view.chosen() == ("dog", "LayerCAM", "layer3")
    view.click("layers", "norm")
    assert view.chosen() == ("No class", "EigenCAM", "norm")
    view.click("methods", "FullGrad")
    assert view.chosen() == ("dog", "FullGrad", "No layer")
    assert view.find("#caption").text == "dog, FullGrad"


@in_browser
def test_targets_of_one_name(opened):
    """Two lambdas explained by two methods: each map can be looked at, and stays chosen from method to method."""
    first, second = spot(10, 50), spot(50, 10)
    twins = [Panel(method, "layer4", None, "<lambda>", None, cam_map) for method in "AB" for cam_map in (first, second)]
    view = opened(explanation(made=twins))
    assert len(view.all("#classes button")) == 2
    assert view.find("#value").text == "highest: 1.00 at x 50, y 10"
    view.redrawn(view.all("#classes button")[1].click)
    assert view.find("#value").text == "highest: 1.00 at x 10, y 50"
    view.click("methods", "B")
    assert view.find("#value").text == "highest: 1.00 at x 10, y 50"


@in_browser
def test_keys(opened):
    left, up, right, down, shift = "\ue012", "\ue013", "\ue014", "\ue015", "\ue008"
    view = opened(explanation("one"), explanation("two"))
    for keys, chosen in {
        (down,): ("dog", "GradCAM", "layer3"),
        (shift, down): ("dog", "LayerCAM", "layer3"),
        (shift, right): ("dog", "LayerCAM", "layer4"),
        (right,): ("dog", "LayerCAM", "layer4"),
        (shift, up): ("dog", "GradCAM", "layer4"),
        (shift, left): ("dog", "GradCAM", "layer3"),
        (up,): ("cat", "GradCAM", "layer3"),
    }.items():
        view.redrawn(lambda keys=keys: view.press(*keys))
        assert view.chosen() == chosen
    view.press(up)
    view.press(right)
    assert view.chosen() == ("cat", "GradCAM", "layer3"), "there is nothing before the first and after the last"
    assert view.find("h1").text == "two"
    view.redrawn(lambda: view.find("#opacity").send_keys(right))
    assert view.find("#opacity").get_attribute("value") == "0.51"
    view.find("#opacity").send_keys(left)
    assert view.find("h1").text == "two", "the keys are the slider's while it has the focus"
    assert {"image", "class", "method", "layer"} == {item.text for item in view.all(".keys dd")}


@in_browser
def test_the_next_image_keeps_what_was_chosen_where_it_can(opened):
    others = panels(("XGradCAM", "LayerCAM"), ("layer2", "layer4"), ("tree", "house"))
    only = [Panel("ScoreCAM", "layer1", 5, "fox", 0.1, LEVELS)]
    view = opened(explanation("one"), explanation("two", others), explanation("three", only), explanation("four"))
    view.click("methods", "LayerCAM")
    view.click("layers", "layer4")
    view.click("classes", "bird")
    view.redrawn(view.find("#next").click)
    assert view.chosen() == ("house", "LayerCAM", "layer4")
    view.redrawn(view.find("#next").click)
    assert view.chosen() == ("fox", "ScoreCAM", "layer1")
    assert view.find("#position").text == "3 of 4"
    view.redrawn(view.all("#images button")[3].click)
    assert view.chosen() == ("bird", "LayerCAM", "layer4")
    assert view.find("#images [aria-current]").text == "four"
    assert not view.find("#next").is_enabled()
    view.redrawn(view.find("#previous").click)
    assert view.find("h1").text == "three"


@in_browser
def test_the_focus_stays_in_its_group(opened):
    view = opened(explanation("one"), explanation("two"))
    view.click("methods", "LayerCAM")
    view.redrawn(lambda: view.press("\ue014"))
    assert view.find("h1").text == "two"
    assert view.browser.switch_to.active_element.text == "LayerCAM"


@in_browser
def test_only_the_shown_images_are_decoded(opened, browser):
    count = "window.decoded = 0; window.Image = class extends Image { constructor() { super(); window.decoded++; } }"
    added = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": count})
    try:
        view = opened(*(explanation(f"{number}.png") for number in range(30)))
        assert browser.execute_script("return window.decoded") == 2
        view.click("classes", "dog")
        assert browser.execute_script("return window.decoded") == 3
        view.click("classes", "cat")
        assert browser.execute_script("return window.decoded") == 3
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


@in_browser
def test_a_map_that_takes_long_does_not_replace_a_later_choice(opened, browser):
    slow = """const decode = HTMLImageElement.prototype.decode; let calls = 0;
    HTMLImageElement.prototype.decode = async function () {
      if (++calls === 3) await new Promise((resolve) => setTimeout(resolve, 300));
      await decode.call(this);
    }"""
    added = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": slow})
    try:
        view = opened(explanation())
        view.redrawn(lambda: browser.execute_script("classes.children[1].click(); classes.children[2].click()"))
        browser.execute_async_script("setTimeout(arguments[0], 600)")
        assert view.find("#value").text == "highest: 1.00 at x 36, y 24"
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


@in_browser
def test_one_image_needs_no_list(opened):
    view = opened(explanation(warnings=["no evidence for cat"]))
    assert not view.find("nav").is_displayed()
    assert not view.find("#next").is_displayed()
    assert view.find("#warnings").text == "no evidence for cat"
    view = opened(explanation("one"), explanation("two"))
    assert view.find("nav").is_displayed()
    assert not view.find("#warnings").is_displayed()


@in_browser
def test_hostile_texts_are_texts(opened, browser):
    panel = Panel(HOSTILE, HOSTILE, 1, HOSTILE, 0.5, LEVELS)
    hostile = Explanation(HOSTILE, PICTURE, [panel], [HOSTILE], {HOSTILE: HOSTILE})
    view = opened(hostile, explanation())
    assert browser.execute_script("return window.hostile") is None
    assert view.find("h1").text == HOSTILE
    assert view.pressed("classes") == view.pressed("methods") == view.pressed("layers") == HOSTILE
    assert view.find("#warnings").text == HOSTILE
    assert view.find("#versions").text == f"{HOSTILE} {HOSTILE}"
    assert view.find("#images [aria-current]").get_attribute("title") == HOSTILE


@in_browser
def test_nothing_is_fetched_and_nothing_fails(opened, browser):
    browser.get("about:blank")
    for kind in ("performance", "browser"):
        browser.get_log(kind)
    view = opened(explanation("one"), explanation("two"))
    view.redrawn(view.find("#next").click)
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [each["params"]["request"]["url"] for each in messages if each["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith("data:")] == [browser.current_url]
    assert browser.get_log("browser") == []


@in_browser
def test_no_other_script_runs(opened, browser):
    opened(explanation())
    inject = "const made = document.createElement('script'); made.textContent = 'window.hostile = 1'; "
    browser.execute_script(inject + "document.body.append(made)")
    assert browser.execute_script("return window.hostile") is None


@in_browser
def test_everything_has_an_accessible_name(opened, browser):
    view = opened(explanation("one", warnings=["no evidence"]), explanation("two"))
    nodes = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named = [(node["role"]["value"], node["name"]["value"]) for node in nodes if not node["ignored"] and "name" in node]
    controls = [(role, name) for role, name in named if role in ("button", "slider", "group", "image", "navigation")]
    assert all(name for _, name in controls)
    assert {
        ("image", "one with its map: cat, 75.0%, GradCAM, layer3"),
        ("slider", "Opacity"),
        ("slider", "Hide below"),
        ("group", "Class"),
        ("group", "Method"),
        ("group", "Layer"),
        ("group", "Colours"),
        ("navigation", "Images"),
        ("button", "Previous image"),
        ("button", "Next image"),
        ("button", "Dark colours"),
        ("button", "two"),
        ("button", "GradCAM"),
        ("button", "jet"),
    } <= set(controls)
    assert len(view.all("[onclick], [tabindex]")) == 0


@in_browser
def test_the_focus_can_be_seen(opened):
    view = opened(explanation())
    for _ in range(3):
        view.press("\ue004")
        focused = view.browser.switch_to.active_element
        assert focused.tag_name == "button"
        assert focused.value_of_css_property("outline-style") == "solid"


def luminance(colour):
    linear = [(c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4) for c in np.array(colour) / 255]
    return np.dot(linear, (0.2126, 0.7152, 0.0722))


CONTRAST = """
const rgb = (text) => { const surface = new OffscreenCanvas(1, 1).getContext("2d");
  surface.fillStyle = text; surface.fillRect(0, 0, 1, 1); return [...surface.getImageData(0, 0, 1, 1).data]; };
const ground = (each) => { while (rgb(getComputedStyle(each).backgroundColor)[3] === 0) each = each.parentElement;
  return rgb(getComputedStyle(each).backgroundColor); };
return [...document.querySelectorAll("h1, h2, p, button:enabled, span, dd, kbd, label, output, li")]
  .filter((each) => each.checkVisibility() && each.textContent.trim())
  .map((each) => [each.outerHTML, rgb(getComputedStyle(each).color).slice(0, 3), ground(each).slice(0, 3)]);
"""


@in_browser
@pytest.mark.parametrize(("media", "switched"), [("light", "dark"), ("dark", "light")])
def test_light_and_dark(opened, browser, media, switched):
    view = opened(explanation("one", warnings=["no evidence"]), explanation("two"), media=media)
    for shown in (media, switched):
        assert view.find("#dark").get_attribute("aria-pressed") == str(shown == "dark").lower()
        for element, text, ground in browser.execute_script(CONTRAST):
            low, high = sorted([luminance(text), luminance(ground)])
            assert (high + 0.05) / (low + 0.05) >= 4.5, element
            assert (luminance(ground) < 0.2) == (shown == "dark"), element
        view.find("#dark").click()
        browser.execute_script("document.getAnimations().forEach((each) => each.finish())")


@in_browser
@pytest.mark.parametrize("width", [320, 700, 1000, 1900])
def test_narrow_and_wide_windows(opened, browser, width):
    long = "a_file_with_a_long_name_and_no_place_to_break_it" * 3
    names = ("cat", long, "bird")
    view = opened(*(explanation(long, panels(names=names), warnings=[long]) for _ in range(30)), width=width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    cut = "return [...document.querySelectorAll(arguments[0])].filter((each) => each.scrollWidth > each.clientWidth)"
    assert browser.execute_script(cut, "main, aside, header, .heading, #classes button, #warnings") == []
    assert view.find("canvas").size["width"] >= 0.3 * width
    view.redrawn(lambda: view.press("\ue014"))
    assert view.find("#position").text == "2 of 30"


@in_browser
def test_the_picture_follows_the_window(opened, browser):
    view = opened(explanation())
    before = view.find("canvas").size["width"]
    screen = {"width": 800, "height": 500, "deviceScaleFactor": 2, "mobile": False}
    view.redrawn(lambda: browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen))
    after = view.find("canvas").size["width"]
    assert after < 0.7 * before
    assert after > 0.9 * view.find("#stage").size["height"]
    assert view.canvas().shape[1] == pytest.approx(2 * after, abs=2)
