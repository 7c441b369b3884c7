"""Views of a page: side by side, differences, grids, zoom, boxes, the original, links, pictures to keep, the list."""

import time

import numpy as np
import pytest
from pages import DOWN, LEVELS, NAMES, PICTURE, RIGHT, SIZE, explanation, flat, in_browser, panels, quadrants, spot
from PIL import Image

from pytorch_grad_cam.explanations.colours import DIVERGING, colour_table
from pytorch_grad_cam.explanations.explanation import Panel, TargetBox

QUARTERS = PICTURE[16::32, 16::32].astype(int)


def opaque(view):
    """Show maps alone, in grey, so that what is seen are their values."""
    view.press_button("zero")
    view.drag("opacity", 1)
    view.click("colour-maps", "grey")


@in_browser
def test_zero_is_transparent(opened):
    view = opened(flat(quadrants(0, 0.25, 0.5, 1)))
    assert view.pressed("colour-maps") == "magma"
    view.drag("opacity", 1)
    magma = colour_table("magma")[[0, 64, 128, 255]].reshape(2, 2, 3)
    share = np.array([[0, 64 / 127.5], [1, 1]])[..., None]
    np.testing.assert_allclose(view.corners(), share * magma + (1 - share) * QUARTERS, atol=5)
    view.press_button("zero")
    np.testing.assert_array_equal(view.corners(), magma)


@in_browser
def test_side_by_side(opened):
    view = opened(flat())
    view.click("views", "Side by side")
    assert [caption.text for caption in view.all("figcaption")] == ["Original", "cat, 50.0%, GradCAM, layer4"]
    assert np.abs(view.corners(0) - QUARTERS).max() <= 4
    opaque(view)
    assert np.abs(view.corners(0) - QUARTERS).max() <= 4
    np.testing.assert_array_equal(view.corners(1)[..., 0], np.rint(255 * LEVELS[16::32, 16::32]))


@in_browser
def test_the_original_while_a_key_or_the_button_is_held(opened):
    from selenium.webdriver import ActionChains

    view = opened(flat())
    opaque(view)
    shown = view.corners()
    for hold, leave in (
        (ActionChains(view.browser).key_down("o"), ActionChains(view.browser).key_up("o")),
        (ActionChains(view.browser).click_and_hold(view.find("#original")), ActionChains(view.browser).release()),
    ):
        view.redrawn(hold.perform)
        assert np.abs(view.corners() - QUARTERS).max() <= 4
        view.redrawn(leave.perform)
        np.testing.assert_array_equal(view.corners(), shown)


@in_browser
def test_the_difference_of_two_maps(opened):
    first, second = quadrants(0.2, 0.8, 0.5, 1), quadrants(0.8, 0.2, 0.5, 0)
    made = [Panel(method, "layer4", 1, "cat", 0.5, cam_map) for method, cam_map in (("A", first), ("B", second))]
    view = opened(explanation(made=made))
    view.press_button("zero")
    view.drag("opacity", 1)
    view.click("views", "Difference")
    levels = np.rint(255 * ((first - second)[16::32, 16::32] + 1) / 2).astype(int)
    np.testing.assert_allclose(view.corners(2), colour_table(DIVERGING)[levels], atol=3)
    assert view.find("#lowest").text == "\N{MINUS SIGN}1"
    view.point(16, 16, figure=2)
    assert view.find("#value").text == "-0.60 at x 16, y 16"
    view.redrawn(lambda: view.choose("minus", "cat, 50.0%, A, layer4"))
    assert (view.corners(2) >= 252).all(), "one map less itself is white"
    view.press_button("zero")
    assert np.abs(view.corners(2) - QUARTERS).max() <= 4, "and shows the picture where zero is transparent"


@in_browser
def test_signed_maps(opened):
    values = quadrants(-1, -0.5, 0, 1)
    view = opened(flat(values))
    view.press_button("zero")
    view.drag("opacity", 1)
    levels = np.rint(127.5 * (values[16::32, 16::32] + 1)).astype(int)
    np.testing.assert_allclose(view.corners(), colour_table(DIVERGING)[levels], atol=3)
    view.point(0, SIZE - 1)
    assert view.find("#value").text == f"-0.50 at x {SIZE - 1}, y 0"
    view.set("threshold", 0.6)
    assert np.abs(view.corners() - QUARTERS)[0, 1].max() <= 4, "hidden are small values of both signs"


@in_browser
def test_a_grid_has_a_column_for_each_class(opened):
    view = opened(explanation())
    opaque(view)
    view.click("views", "All maps")
    figures = view.all("figure")
    assert len(figures) == 12
    assert len({figure.rect["x"] for figure in figures}) == 3
    assert [figure.text for figure in figures[:4]] == [
        "cat, 75.0%, GradCAM, layer3",
        "dog, 20.0%, GradCAM, layer3",
        "bird, GradCAM, layer3",
        "cat, 75.0%, GradCAM, layer4",
    ]
    for figure, (row, column) in enumerate([(10, 50), (17, 43), (24, 36)]):
        shown = view.canvas(figure)[..., 0]
        place = np.argwhere(shown == shown.max()).mean(axis=0) / len(shown) * SIZE - 0.5
        np.testing.assert_allclose(place, (row, column), atol=1)
    assert view.find("figure[aria-current]").text == "cat, 75.0%, GradCAM, layer3"
    view.redrawn(figures[7].find_element("css selector", "button").click)
    assert view.chosen() == ("dog", "LayerCAM", "layer3")
    assert view.pressed("views") == "Map"
    view.click("views", "All maps")
    view.redrawn(view.all("figure canvas")[11].click)
    assert view.chosen() == ("bird", "LayerCAM", "layer4")


@in_browser
def test_a_grid_of_one_class_has_a_column_for_each_layer(opened):
    view = opened(explanation(made=panels(names=("cat",))))
    view.click("views", "All maps")
    places = [(figure.rect["x"], figure.rect["y"]) for figure in view.all("figure")]
    assert places[0][0] == places[2][0] < places[1][0] == places[3][0], "layer3, layer4"
    assert places[0][1] == places[1][1] < places[2][1] == places[3][1], "GradCAM, LayerCAM"


@in_browser
def test_zoom(opened):
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

    view = opened(flat())
    opaque(view)
    view.redrawn(lambda: view.press("+"))
    assert view.find("#zoom-reset").text == "1.5\N{MULTIPLICATION SIGN}"
    for _ in range(4):
        view.press_button("zoom-in")
    shown = view.canvas()[..., 0]
    assert {51, 204, 102, 255} <= set(np.unique(shown)), "the middle of the picture"
    from selenium.webdriver import ActionChains

    for _ in range(3):
        drag = ActionChains(view.browser, duration=20).click_and_hold(view.find("#stage canvas"))
        view.redrawn(drag.move_by_offset(-200, 200).release().perform)
    assert set(np.unique(view.canvas()[..., 0])) == {204}, "moved to the upper right quarter"
    view.redrawn(lambda: view.press("0"))
    view.point(0, 0)
    origin = ScrollOrigin.from_element(view.find("#stage canvas"), -200, -200)
    view.redrawn(ActionChains(view.browser).scroll_from_origin(origin, 0, -600).perform)
    assert set(np.unique(view.canvas()[..., 0])) == {51}, "the place under the wheel stays where it is"
    before = view.find("#value").text
    view.redrawn(lambda: view.press("0"))
    assert view.find("#zoom-out").is_enabled() is False
    assert before.startswith("0.20 at x")


@in_browser
def test_zoom_is_of_all_figures_and_ends_with_the_image(opened):
    view = opened(explanation(), explanation())
    view.click("views", "Side by side")
    whole = [view.canvas(figure) for figure in range(2)]
    for _ in range(3):
        view.press_button("zoom-in")
    assert [np.abs(view.canvas(figure) - whole[figure]).max() > 40 for figure in range(2)] == [True, True]
    view.redrawn(lambda: view.press(RIGHT))
    assert view.find("#zoom-reset").text == "1\N{MULTIPLICATION SIGN}"
    for figure in range(2):
        np.testing.assert_array_equal(view.canvas(figure), whole[figure])


@in_browser
def test_boxes_around_what_a_map_shows(opened):
    view = opened(flat(quadrants(0, 1, 0, 0)))
    assert view.find("#boxes").get_attribute("aria-pressed") == "false"
    before = view.canvas()
    view.redrawn(lambda: view.press("b"))
    changed = np.argwhere((view.canvas() != before).any(2)) / len(before) * SIZE
    np.testing.assert_allclose(changed.min(axis=0), (0, 32), atol=0.5)
    np.testing.assert_allclose(changed.max(axis=0), (32, 64), atol=0.5)
    view.press_button("boxes")
    np.testing.assert_array_equal(view.canvas(), before)


@in_browser
def test_the_outline_of_a_region_and_a_click_into_it(opened):
    """A ring, and what lies in its hole: of two regions with boxes around one another the one that is there."""
    ring, inner = np.zeros((2, SIZE, SIZE), bool)
    ring[8:56, 8:56] = True
    ring[20:44, 20:44] = False
    inner[26:38, 26:38] = True
    made = [
        Panel("LayerCAM", "up3", number, name, None, np.zeros((SIZE, SIZE), np.float32), region=region)
        for number, (name, region) in enumerate({"ring": ring, "inner": inner}.items())
    ]
    view = opened(explanation(made=made))
    opaque(view)
    shown = np.argwhere(view.canvas()[..., 0] > 230) / len(view.canvas()) * SIZE
    assert view.pressed("classes") == "ring"
    for edge in (8, 20, 44, 56):
        along = shown[(np.abs(shown[:, 1] - edge) < 0.5) & (np.abs(shown[:, 0] - 32) < 5)]
        assert len(along) > 0, f"no outline at {edge}"
    view.redrawn(view.at(32, 32).click().perform)
    assert view.pressed("classes") == "inner"
    view.redrawn(view.at(50, 32).click().perform)
    assert view.pressed("classes") == "ring"
    view.at(23, 32).click().perform()
    assert view.pressed("classes") == "ring", "the hole is neither"


def detections():
    """Three panels of one image, each for a box; the second lies within the first."""
    boxes = {"dog": (4, 4, 60, 60), "nose": (40, 10, 56, 26), "cat": (4, 30, 30, 60)}
    found = [TargetBox(name, 0.9, box) for name, box in boxes.items()]
    return [
        Panel(method, "neck", index, box.name, 0.9, spot(20, 20), (), (box,))
        for method in ("GradCAM", "LayerCAM")
        for index, box in enumerate(found)
    ]


@in_browser
def test_a_click_on_a_box_chooses_its_map(opened):
    view = opened(explanation(made=detections()))
    view.click("methods", "LayerCAM")
    for (row, column), name in {(18, 48): "nose", (50, 50): "dog", (45, 15): "cat"}.items():
        view.redrawn(view.at(row, column).click().perform)
        assert view.chosen() == (name, "LayerCAM", "neck")
    view.at(1, 1).click().perform()
    assert view.pressed("classes") == "cat", "there is no box"
    view.press_button("zoom-in")
    from selenium.webdriver import ActionChains

    middle = ActionChains(view.browser, duration=20).move_to_element(view.find("#stage canvas")).click_and_hold()
    view.redrawn(middle.move_by_offset(30, 0).release().perform)
    assert view.pressed("classes") == "cat", "a drag is no click"


@in_browser
def test_a_warning_is_that_of_the_map_that_is_shown(opened):
    made = [panel._replace(warnings=(f"{panel.layer} is blank",)) for panel in panels(layers=("layer4",))]
    view = opened(explanation(made=[*panels(layers=("layer3",)), *made], warnings=()))
    assert not view.find("#warnings").is_displayed()
    view.click("layers", "layer4")
    assert view.find("#warnings").text == "layer4 is blank"
    view.click("layers", "layer3")
    assert not view.find("#warnings").is_displayed()


@in_browser
def test_how_it_was_made(opened):
    about = {"model": "resnet50", "align": "receptive_field", "date": "2026-11-27"}
    view = opened(explanation(about=about, assumptions=["probabilities: the softmax (assumed)"], truth="dog"))
    assert view.find("#about").text.splitlines() == [
        "model: resnet50",
        "align: receptive_field",
        "date: 2026-11-27",
    ]
    assert view.find("#assumptions").text == "probabilities: the softmax (assumed)"
    assert view.find("#truth").text == "truth: dog; the model says cat"


@in_browser
def test_a_link_to_what_is_shown(opened, browser):
    view = opened(explanation("one"), explanation("two"))
    assert browser.current_url.endswith("page.html")
    view.redrawn(lambda: view.press(RIGHT))
    view.click("methods", "LayerCAM")
    view.redrawn(lambda: view.press(DOWN))
    view.click("views", "Difference")
    view.redrawn(lambda: view.choose("minus", "cat, 75.0%, GradCAM, layer3"))
    view.click("colour-maps", "jet")
    view.press_button("zero")
    view.press_button("boxes")
    view.set("opacity", 0.4)
    view.set("threshold", 0.1)
    _, _, at = browser.current_url.partition("#")
    shown = [view.canvas(figure) for figure in range(3)]
    again = opened(explanation("one"), explanation("two"), at=at)
    assert again.find("h1").text == "two"
    assert again.chosen() == ("dog", "LayerCAM", "layer3")
    assert again.pressed("views") == "Difference"
    for figure, expected in enumerate(shown):
        np.testing.assert_array_equal(again.canvas(figure), expected)
    again.redrawn(lambda: browser.execute_script("location.hash = 'image=1&map=3'"))
    assert (again.find("h1").text, again.pressed("classes"), again.pressed("views")) == ("one", "bird", "Map")


@in_browser
@pytest.mark.parametrize(
    "at", ["image=900&map=-3", "image=x&view=video&colours=none&opacity=7&minus=", "%%%", "a=b&=&&"]
)
def test_a_link_that_is_wrong_shows_the_page(opened, browser, at):
    browser.get_log("browser")
    view = opened(explanation("one"), explanation("two"), at=at)
    assert view.find("h1").text in ("one", "two")
    assert browser.get_log("browser") == []


@in_browser
@pytest.mark.parametrize(("shown", "columns"), [("Map", 1), ("Side by side", 2), ("All maps", 3)])
def test_what_is_shown_as_one_picture(shown, columns, opened, browser, tmp_path):
    behaviour = {"behavior": "allow", "downloadPath": str(tmp_path / "kept")}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
    view = opened(explanation("photo.jpg"))
    if shown != "Map":
        view.click("views", shown)
    canvas = view.canvas()
    view.find("#download").click()
    deadline = time.monotonic() + 10
    while not list((tmp_path / "kept").glob("*.png")) and time.monotonic() < deadline:
        time.sleep(0.05)
    (file,) = (tmp_path / "kept").glob("*.png")
    assert file.name.startswith("photo.jpg.")
    picture = np.asarray(Image.open(file))[..., :3].astype(int)
    assert picture.shape[1] >= columns * canvas.shape[1]
    np.testing.assert_array_equal(picture[: canvas.shape[0], : canvas.shape[1]], canvas)
    below = picture[canvas.shape[0] :]
    assert below.min() < 100 < 250 < below.max(), "words, black on white"


def graded():
    of_images = {
        "photo 10.jpg": ((0.9, 0.1, 0), "cat"),
        "photo 9.jpg": ((0.4, 0.6, 0), "cat"),
        "scan.jpg": ((0.2, 0.1, 0.7), "bird"),
    }
    return [explanation(title, probabilities=p, truth=truth) for title, (p, truth) in of_images.items()]


@in_browser
def test_the_list_is_sorted_and_filtered(opened):
    view = opened(*graded())
    for order, titles in {
        "By name": ["photo 9.jpg", "photo 10.jpg", "scan.jpg"],
        "Least sure first": ["photo 9.jpg", "scan.jpg", "photo 10.jpg"],
        "Surest first": ["photo 10.jpg", "scan.jpg", "photo 9.jpg"],
        "As given": ["photo 10.jpg", "photo 9.jpg", "scan.jpg"],
    }.items():
        view.choose("order", order)
        assert view.listed() == titles
    view.choose("order", "By name")
    assert view.find("#position").text == "2 of 3"
    view.redrawn(lambda: view.press_button("next"))
    assert view.find("h1").text == "scan.jpg", "the next one is that of the list"
    view.choose("kind", "Wrong")
    assert view.listed() == ["photo 9.jpg"]
    assert view.find("#position").text == "1 listed"
    view.press_button("next")
    assert view.find("h1").text == "photo 9.jpg"
    view.choose("kind", "Right")
    assert view.listed() == ["photo 10.jpg", "scan.jpg"]
    view.choose("kind", "All")
    for text, titles in {"SCAN": ["scan.jpg"], "bird": ["scan.jpg"], "dog": ["photo 9.jpg"], "zebra": []}.items():
        view.find("#filter").clear()
        view.find("#filter").send_keys(text)
        assert view.listed() == titles
    assert view.find("#none").is_displayed()


@in_browser
def test_only_kinds_that_there_are_can_be_chosen(opened):
    view = opened(explanation("one"), explanation("two", warnings=["no evidence"]))
    assert [option.text for option in view.all("#kind option")] == ["All", "Warned of"]
    view.choose("kind", "Warned of")
    assert view.listed() == ["two"]
    assert not opened(explanation("one"), explanation("two")).find("#kind").is_displayed()


@in_browser
@pytest.mark.parametrize("width", [390, 800, 1400])
@pytest.mark.parametrize("shown", ["Map", "Side by side", "Difference", "All maps"])
def test_every_view_in_narrow_and_wide_windows(shown, width, opened, browser):
    long = "a_file_with_a_long_name_and_no_place_to_break_it" * 2
    made = panels(names=(*NAMES[:2], long))
    told = {"truth": long, "about": {"model": long}, "assumptions": [long]}
    view = opened(*(explanation(long, made, **told) for _ in range(5)), width=width, height=900)
    if shown != "Map":
        view.click("views", shown)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    cut = (
        "return [...document.querySelectorAll(arguments[0])].filter((each) => each.scrollWidth > each.clientWidth + 1)"
    )
    assert browser.execute_script(cut, "main, header, .tools, .heading, figcaption, #images button, .made") == []
    assert browser.execute_script("return scrollY") == 0, "the page opens at its top"
    stage = view.find("#stage").rect
    for canvas in view.all("#stage canvas")[:2]:
        assert canvas.rect["width"] >= 100
        assert stage["x"] - 1 <= canvas.rect["x"]
        assert canvas.rect["x"] + canvas.rect["width"] <= stage["x"] + stage["width"] + 1


COUNT = 5
HIGHEST = {"cat": 3, "dog": 1}


def volume():
    """Five slices of one grey each, 40 and 20 more for each next one; the map of a class is 1 in one of them."""
    picture = np.repeat(40 + 20 * np.arange(COUNT, dtype=np.uint8), SIZE * SIZE * 3).reshape(COUNT, SIZE, SIZE, 3)
    made = []
    for category, (name, highest) in enumerate(HIGHEST.items()):
        cam_map = np.zeros((COUNT, SIZE, SIZE), np.float32)
        cam_map[highest, :32, 32:] = 1
        made.append(Panel("GradCAM", "layer4", category, name, 0.5, cam_map))
    return explanation(picture=picture, made=made)


def greys(view):
    return [int(grey) for grey in view.corners()[..., 0].ravel()]


@in_browser
def test_slices_of_a_volume_one_after_the_other(opened):
    view = opened(volume())
    opaque(view)
    assert view.find("#slice-value").text == "3 of 4", "where the map is highest"
    assert greys(view) == [0, 255, 0, 0]
    shown = view.canvas()
    assert (shown[0, len(shown) * 3 // 4 :] == 255).all(), "nothing of the slices beside it"
    view.drag("opacity", 0)
    assert max(abs(grey - 100) for grey in greys(view)) <= 3
    view.find("h1").click()  # the keys of a slider are its own
    for act, expected in (
        (lambda: view.press("\ue00f"), 4),  # page down
        (lambda: view.press("\ue00e"), 3),  # page up
        (lambda: view.browser.execute_script(_WHEEL, view.find("#stage canvas"), -100), 2),
        (lambda: view.browser.execute_script(_WHEEL, view.find("#stage canvas"), 100), 3),
    ):
        view.redrawn(act)
        assert view.find("#slice-value").text == f"{expected} of 4"
        assert max(abs(grey - 40 - 20 * expected) for grey in greys(view)) <= 3
    view.set("slice", 0)
    view.point(10, 40)
    assert view.find("#value").text == "0.00 at x 40, y 10, slice 0"
    assert "slice=0" in view.browser.current_url


@in_browser
def test_a_class_has_its_slice_until_one_is_chosen(opened):
    view = opened(volume())
    view.click("classes", "dog")
    assert view.find("#slice-value").text == "1 of 4"
    view.set("slice", 2)
    view.click("classes", "cat")
    assert view.find("#slice-value").text == "2 of 4"


@in_browser
def test_all_slices_side_by_side(opened):
    view = opened(volume())
    opaque(view)
    view.press_button("all-slices")
    shown = view.canvas()[..., 0]
    height, width = shown.shape
    assert width / height == pytest.approx(3 / 2, abs=0.02)
    assert (shown == 255).mean() == pytest.approx(1 / 24, abs=0.01)
    assert view.find("#slice-value").text == "all 5"
    assert "slice=all" in view.browser.current_url
    view.press_button("all-slices")
    assert greys(view) == [0, 255, 0, 0]


@in_browser
def test_a_slice_may_be_linked_to_and_pictures_have_none(opened):
    assert opened(volume(), at="slice=2").find("#slice-value").text == "2 of 4"
    assert opened(volume(), at="slice=9").find("#slice-value").text == "4 of 4"
    assert not opened(flat()).find("#slices").is_displayed()


@in_browser
def test_boxes_of_a_slice(opened):
    view = opened(volume())
    view.drag("opacity", 0)
    before = view.canvas()
    view.press_button("boxes")
    changed = np.argwhere(np.abs(view.canvas() - before).max(-1) > 20) / len(before) * SIZE
    (top, left), (bottom, right) = changed.min(0), changed.max(0)
    np.testing.assert_allclose([left, top, right, bottom], [32, 0, 64, 32], atol=2)


_WHEEL = "arguments[0].dispatchEvent(new WheelEvent('wheel', {deltaY: arguments[1], cancelable: true}))"
