"""What a headless Chromium shows of a page, and does with it."""

import json

import cv2
import numpy as np
import pytest
from pages import (
    DOWN,
    HOSTILE,
    LEFT,
    LEVELS,
    PICTURE,
    RIGHT,
    SHIFT,
    SIZE,
    UP,
    explanation,
    flat,
    in_browser,
    panels,
    spot,
)

from pytorch_grad_cam.explanations.explanation import Panel
from pytorch_grad_cam.utils.image import show_cam_on_image

COLOUR_MAPS = {"jet": cv2.COLORMAP_JET, "viridis": cv2.COLORMAP_VIRIDIS, "magma": cv2.COLORMAP_MAGMA}


@in_browser
def test_opacity(opened):
    view = opened(flat())
    quarters = PICTURE[16::32, 16::32].astype(int)
    view.press_button("zero")
    view.click("colour-maps", "jet")
    view.set("opacity", 0.5)
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
    view.press_button("zero")
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
    view.press_button("zero")
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
    view.redrawn(lambda: view.press(DOWN))
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
    view = opened(explanation("one"), explanation("two"))
    for keys, chosen in {
        (DOWN,): ("dog", "GradCAM", "layer3"),
        (SHIFT, DOWN): ("dog", "LayerCAM", "layer3"),
        (SHIFT, RIGHT): ("dog", "LayerCAM", "layer4"),
        (RIGHT,): ("dog", "LayerCAM", "layer4"),
        (SHIFT, UP): ("dog", "GradCAM", "layer4"),
        (SHIFT, LEFT): ("dog", "GradCAM", "layer3"),
        (UP,): ("cat", "GradCAM", "layer3"),
    }.items():
        view.redrawn(lambda keys=keys: view.press(*keys))
        assert view.chosen() == chosen
    view.press(UP)
    view.press(RIGHT)
    assert view.chosen() == ("cat", "GradCAM", "layer3"), "there is nothing before the first and after the last"
    assert view.find("h1").text == "two"
    view.redrawn(lambda: view.find("#opacity").send_keys(RIGHT))
    assert view.find("#opacity").get_attribute("value") == "0.71"
    view.find("#opacity").send_keys(LEFT)
    assert view.find("h1").text == "two", "the keys are the slider's while it has the focus"
    told = {"image", "class", "method", "layer", "view", "original", "boxes", "zoom"}
    assert told == {item.text for item in view.all(".keys dd") if item.is_displayed()}, "those of slices have volumes"


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
    view.redrawn(lambda: view.press(RIGHT))
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
    told = {"truth": HOSTILE, "about": {"model": HOSTILE}, "assumptions": [HOSTILE]}
    hostile = explanation(HOSTILE, [panel], warnings=[HOSTILE], **told)
    hostile.versions, hostile.names = {HOSTILE: HOSTILE}, [HOSTILE, "", ""]
    view = opened(hostile, explanation())
    assert browser.execute_script("return window.hostile") is None
    assert view.find("h1").text == HOSTILE
    assert view.pressed("classes") == view.pressed("methods") == view.pressed("layers") == HOSTILE
    assert view.find("#warnings").text == HOSTILE
    assert view.find("#versions").text == f"{HOSTILE} {HOSTILE}"
    assert view.find("#truth").text == f"truth: {HOSTILE}; the model is right"
    assert HOSTILE in view.find("#about").text
    assert view.find("#assumptions").text == HOSTILE
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
    assert [url for url in asked if not url.startswith("data:")] == [browser.current_url.partition("#")[0]]
    assert browser.get_log("browser") == []


@in_browser
def test_no_other_script_runs(opened, browser):
    opened(explanation())
    inject = "const made = document.createElement('script'); made.textContent = 'window.hostile = 1'; "
    browser.execute_script(inject + "document.body.append(made)")
    assert browser.execute_script("return window.hostile") is None


CONTROLS = ("button", "slider", "group", "image", "navigation", "checkbox", "searchbox", "combobox")


@in_browser
def test_everything_has_an_accessible_name(opened, browser):
    view = opened(explanation("one", warnings=["no evidence"]), explanation("two"))
    nodes = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named = [(node["role"]["value"], node["name"]["value"]) for node in nodes if not node["ignored"] and "name" in node]
    controls = [(role, name) for role, name in named if role in CONTROLS]
    assert all(name for _, name in controls)
    assert {
        ("image", "one with its map: cat, 75.0%, GradCAM, layer3"),
        ("slider", "Opacity"),
        ("slider", "Hide below"),
        ("group", "Class"),
        ("group", "Method"),
        ("group", "Layer"),
        ("group", "Colours"),
        ("group", "View"),
        ("group", "Zoom"),
        ("checkbox", "Zero is transparent"),
        ("searchbox", "Filter by name or class"),
        ("combobox", "Order"),
        ("button", "Zoom in"),
        ("button", "Boxes"),
        ("button", "PNG"),
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
@pytest.mark.parametrize("width", [320, 390, 700, 800, 1000, 1400, 1900])
def test_narrow_and_wide_windows(opened, browser, width):
    long = "a_file_with_a_long_name_and_no_place_to_break_it" * 3
    names = ("cat", long, "bird")
    view = opened(*(explanation(long, panels(names=names), warnings=[long]) for _ in range(30)), width=width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    cut = "return [...document.querySelectorAll(arguments[0])].filter((each) => each.scrollWidth > each.clientWidth)"
    whole = "main, aside, header, .heading, #classes button, #warnings, #images button"
    assert browser.execute_script(cut, whole) == []
    assert view.find("canvas").size["width"] >= 0.3 * width
    view.redrawn(lambda: view.press(RIGHT))
    assert view.find("#position").text == "2 of 30"


@in_browser
def test_the_picture_follows_the_window(opened, browser):
    view = opened(explanation())
    before = view.find("canvas").size["width"]
    screen = {"width": 800, "height": 600, "deviceScaleFactor": 2, "mobile": False}
    view.redrawn(lambda: browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen))
    after = view.find("canvas").size["width"]
    assert after < 0.7 * before
    assert after > 0.9 * view.find("#stage").size["height"]
    assert view.canvas().shape[1] == pytest.approx(2 * after, abs=2)
