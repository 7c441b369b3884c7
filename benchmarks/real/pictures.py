"""Photos with boxes, and scenes of two cut-outs on a real background, whose places are known exactly."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from benchmarks.real.packages import GRADIO, SCIKIT_IMAGE, STAMPS

# Of the short side, what the centre crop keeps: as ImageNet's classifiers are evaluated.
_CROP = 0.875
_TRIES = 50
_OPAQUE = 127

# Package, file, ImageNet class, boxes: left, top, right, bottom as shares of the crop, drawn before any map was seen.
_PHOTOS = [
    (SCIKIT_IMAGE, "coffee.png", 967, [(0.13, 0, 0.82, 0.6)]),
    (SCIKIT_IMAGE, "astronaut.png", 812, [(0.75, 0.05, 0.95, 0.62)]),
    (SCIKIT_IMAGE, "rocket.jpg", 657, [(0.46, 0.25, 0.56, 1)]),
    (GRADIO, "cheetah.jpg", 293, [(0, 0.3, 0.93, 0.73)]),
    (GRADIO, "lion.jpg", 291, [(0.15, 0, 0.8, 0.95), (0.7, 0.05, 1, 0.7)]),
]
_BACKGROUNDS = [(SCIKIT_IMAGE, name) for name in ("grass.png", "gravel.png", "brick.png", "moon.png", "coffee.png")]
_BACKGROUNDS += [(GRADIO, "tower.jpg")]
_CUT_OUTS = {  # file of the package, ImageNet class
    "animals/birds/hen.png": 8, "animals/birds/gander.png": 99, "animals/birds/peacock.png": 84,
    "animals/birds/penguin.png": 145, "animals/birds/pink_flamingo.png": 130, "animals/birds/tucan.png": 96,
    "animals/birds/rainbow-lorikeet.png": 90, "animals/birds/rooster.png": 7, "animals/birds/vulture.png": 23,
    "animals/birds/duck.png": 97, "animals/birds/crowned_crane.png": 134, "animals/insects/mantis.png": 315,
    "animals/insects/xanthia.png": 326, "animals/insects/fly.png": 308, "animals/mammals/apes/chimp.png": 367,
    "animals/mammals/apes/gorilla.png": 366, "animals/mammals/aquatic/otter.png": 360,
    "animals/mammals/aquatic/sea_lion.png": 150, "animals/mammals/badger.png": 362,
    "animals/mammals/bears/bear.png": 294, "animals/mammals/bovines/bison.png": 347,
    "animals/mammals/bovines/ram.png": 348, "animals/mammals/camel/dromedary.png": 354,
    "animals/mammals/cats/tiger.png": 292, "animals/mammals/dogs/dingo.png": 273,
    "animals/mammals/equines/zebra.png": 340, "animals/mammals/hippopotamus.png": 344, "animals/mammals/pig.png": 341,
    "animals/mammals/rodents/squirrel.png": 335, "animals/marsupials/koala.png": 105,
    "animals/marsupials/wombat.png": 106, "animals/amphibians/frog.png": 32, "clothes/hats/sombrero.png": 808,
    "food/fruit/Strawberry2.png": 949, "food/fruit/lemon.png": 951, "food/vegetables/broccoli.png": 937,
    "hobbies/binoculars.png": 447, "hobbies/music/brass/trumpet.png": 513, "hobbies/music/string/cello.png": 486,
    "hobbies/music/string/violin.png": 889, "household/toilet.png": 861, "sports/basketball.png": 430,
    "sports/soccer.png": 805, "sports/tennis_ball.png": 852, "vehicles/emergency/firetruck.png": 555,
    "vehicles/flight/balloon360.png": 417, "vehicles/garbagetruck.png": 569,
}  # fmt: skip


class Picture(NamedTuple):
    """Pixels (size, size, 3), 0 to 255, and what is in them: each object's class and where it is, bool (size, size)."""

    pixels: np.ndarray
    objects: list[tuple[int, np.ndarray]]


def photos(size: int) -> Iterator[Picture]:
    """The photos at this size, with their boxes as masks."""
    for package, name, category, boxes in _PHOTOS:
        inside = np.zeros((size, size), bool)
        for left, top, right, bottom in np.rint(np.array(boxes) * size).astype(int).tolist():
            inside[top:bottom, left:right] = True
        yield Picture(np.array(_cropped(_opened(package.folder(), name), size, _CROP)), [(category, inside)])


def scenes(size: int, count: int, seed: int = 0) -> Iterator[Picture]:
    """Two cut-outs of different classes, 30 to 50 % of the side, anywhere without touching, on a real background."""
    generator = random.Random(seed)
    folder = STAMPS.folder() / "usr/share/tuxpaint/stamps"
    while count:
        package, name = generator.choice(_BACKGROUNDS)
        canvas = _cropped(_opened(package.folder(), name), size, generator.uniform(0.5, 1))
        objects: list[tuple[int, np.ndarray]] = []
        for file, category in generator.sample(sorted(_CUT_OUTS.items()), 2):
            place = _pasted(canvas, folder / file, generator, [inside for _, inside in objects])
            objects += [] if place is None else [(category, place)]
        if len(objects) == 2:
            count -= 1
            yield Picture(np.array(canvas), objects)


def _pasted(canvas: Image.Image, file: Path, generator: random.Random, taken: list[np.ndarray]) -> np.ndarray | None:
    """Where the cut-out was put, bool (H, W); None where there was no room for it."""
    cut_out = Image.open(file).convert("RGBA")
    cut_out = cut_out.crop(cut_out.getchannel("A").getbbox())
    scale = generator.uniform(0.3, 0.5) * canvas.width / max(cut_out.size)
    cut_out = cut_out.resize([max(1, round(length * scale)) for length in cut_out.size], Image.Resampling.BICUBIC)
    for _ in range(_TRIES):
        x, y = (generator.randint(0, canvas.width - length) for length in cut_out.size)
        rectangle = np.s_[y : y + cut_out.height, x : x + cut_out.width]
        if not any(_bounds(other)[rectangle].any() for other in taken):
            canvas.paste(cut_out, (x, y), cut_out)
            inside = np.zeros((canvas.height, canvas.width), bool)
            inside[rectangle] = np.asarray(cut_out)[..., 3] > _OPAQUE
            return inside
    return None


def _bounds(inside: np.ndarray) -> np.ndarray:
    """The rectangle around what is inside."""
    return inside.any(1)[:, None] & inside.any(0)


def _opened(folder: Path, name: str) -> Image.Image:
    return Image.open(next(folder.glob(f"**/{name}"))).convert("RGB")


def _cropped(picture: Image.Image, size: int, share: float) -> Image.Image:
    """The share of the short side in the middle of the picture, at this size."""
    scale = size / share / min(picture.size)
    picture = picture.resize([round(length * scale) for length in picture.size], Image.Resampling.BICUBIC)
    left, top = (round((length - size) / 2) for length in picture.size)
    return picture.crop((left, top, left + size, top + size))
