"""How soon the page of maps can be read and answers in a headless Chromium: `python -m benchmarks.page`.

Crops of 224 x 224 of two photographs, with the maps of three methods for three classes: random values on 7 x 7 cells,
enlarged. Times are the browser's own, medians with the lowest and the highest: from the navigation to the load event
and to the first map on the canvas, and from a click to the frame after the new map was drawn.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.browser import MISSING, chromium, open_page
from benchmarks.report import write_report
from pytorch_grad_cam.engine.maps import resize
from pytorch_grad_cam.explanations.explanation import Explanation, Panel
from pytorch_grad_cam.explanations.report import write_report as write_page

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

COUNTS = (2, 20, 200)
METHODS, CLASSES = ("GradCAM", "LayerCAM", "ScoreCAM"), ("tabby", "daisy", "lakeside")
SIDE, CELLS = 224, 7
ROUNDS, CLICKS = 7, 20
MEGABYTE = 1e6

OTHER_CLASS = tuple(f"#classes button:nth-child({rank})" for rank in (2, 3, 1))
OTHER_IMAGE = ("#next", "#previous")
OPENED = """
const [drawn] = performance.getEntriesByName("drawn"), [navigation] = performance.getEntriesByType("navigation");
return [navigation.loadEventEnd, drawn.startTime];
"""
# Clicks in turn on what the selectors find; the milliseconds of each.
CLICKED = """
const [selectors, clicks, done] = arguments;
const frame = () => new Promise(requestAnimationFrame);
const count = () => performance.getEntriesByName("drawn").length;
const times = [];
for (let click = 0; click < clicks; click++) {
  await new Promise((resolve) => setTimeout(resolve, 50));
  const [before, start] = [count(), performance.now()];
  document.querySelector(selectors[click % selectors.length]).click();
  while (count() === before) await frame();
  await frame();
  times.push(performance.now() - start);
}
done(times);
"""


def explanations(count: int) -> Iterator[Explanation]:
    from sklearn.datasets import load_sample_images

    photographs = load_sample_images().images
    random = np.random.default_rng(0)
    for index in range(count):
        photograph = photographs[index % len(photographs)]
        top, left = (random.integers(side - SIDE) for side in photograph.shape[:2])
        cells = random.random((len(METHODS) * len(CLASSES), 1, CELLS, CELLS), dtype=np.float32)
        maps = iter(resize(torch.from_numpy(cells), (SIDE, SIDE))[:, 0].clamp(0, 1).numpy())
        picture = photograph[top : top + SIDE, left : left + SIDE]
        panels = [
            Panel(method, "layer4", rank, name, 0.5, next(maps))
            for method in METHODS
            for rank, name in enumerate(CLASSES)
        ]
        scores = np.full(len(CLASSES), 0.5, np.float32)
        yield Explanation(f"{index:04d}.jpg", picture, panels, scores, scores, CLASSES)


def row(browser: Chrome, page: Path, rounds: int) -> dict[str, str]:
    opened = []
    for _ in range(rounds):
        browser.get("about:blank")
        open_page(browser, page)
        opened.append(browser.execute_script(OPENED))
    loaded, drawn = zip(*opened, strict=True)
    return {
        "file, MB": f"{page.stat().st_size / MEGABYTE:.1f}",
        "loaded, ms": _spread(loaded),
        "first map, ms": _spread(drawn),
        "other class, ms": _clicks(browser, OTHER_CLASS),
        "other image, ms": _clicks(browser, OTHER_IMAGE),
    }


def _clicks(browser: Chrome, selectors: tuple[str, ...]) -> str:
    return _spread(browser.execute_async_script(CLICKED, selectors, CLICKS))


def _spread(times: Sequence[float]) -> str:
    return f"{statistics.median(times):.0f} ({min(times):.0f}-{max(times):.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each page is opened")
    options = parser.parse_args()
    if MISSING:
        sys.stderr.write(f"{MISSING}\n")
        return
    rows = {}
    with chromium() as browser, TemporaryDirectory() as folder:
        for count in COUNTS:
            page = write_page(explanations(count), Path(folder) / "page.html")
            rows[f"{count} images, {count * len(METHODS) * len(CLASSES):,} maps"] = row(browser, page, options.rounds)
        version = browser.capabilities["browserVersion"]
    write_report("page", rows, f"headless Chromium {version}; median (lowest-highest)")


if __name__ == "__main__":
    main()
