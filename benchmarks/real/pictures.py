"""Photos with boxes, and scenes of two cut-outs on a real background, whose places are known exactly."""

import io
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from benchmarks.real.packages import GCOMPRIS, GRADIO, SCIKIT_IMAGE, STAMPS, Package
from benchmarks.real.qt_resources import files_of

# Of the short side, what the centre crop keeps: as ImageNet's classifiers are evaluated.
_CROP = 0.875
_TRIES = 50
_OPAQUE = 127

# Package, file, ImageNet class, boxes: left, top, right, bottom as shares of the crop, drawn before any map was seen.
# Of GCompris' pictures those of world animals and monuments are kept aside: no choice in the library was made by them.
_PHOTOS: list[tuple[Package, str, int, list[tuple[float, float, float, float]]]] = [
    (SCIKIT_IMAGE, "coffee.png", 967, [(0.13, 0, 0.82, 0.6)]),
    (SCIKIT_IMAGE, "astronaut.png", 812, [(0.75, 0.05, 0.95, 0.62)]),
    (SCIKIT_IMAGE, "rocket.jpg", 657, [(0.46, 0.25, 0.56, 1)]),
    (GRADIO, "cheetah.jpg", 293, [(0, 0.3, 0.93, 0.73)]),
    (GRADIO, "lion.jpg", 291, [(0.15, 0, 0.8, 0.95), (0.7, 0.05, 1, 0.7)]),
    (GCOMPRIS, "erase.rcc:alpaca.webp", 355, [(0, 0.05, 0.67, 1), (0.6, 0.8, 1, 1)]),
    (GCOMPRIS, "erase.rcc:camels.webp", 354, [(0.17, 0.06, 1, 0.94)]),
    (GCOMPRIS, "erase.rcc:cheetah.webp", 293, [(0.24, 0.5, 1, 1), (0.88, 0, 1, 0.38)]),
    (GCOMPRIS, "erase.rcc:gibbon.webp", 368, [(0.22, 0, 0.83, 0.97)]),
    (GCOMPRIS, "erase.rcc:macaque.webp", 373, [(0.45, 0.05, 1, 1)]),
    (GCOMPRIS, "erase.rcc:northern_harrier.webp", 21, [(0, 0, 0.83, 0.72)]),
    (GCOMPRIS, "erase.rcc:nubian_ibex.webp", 350, [(0.15, 0, 1, 1)]),
    (GCOMPRIS, "erase.rcc:penguin.webp", 145, [(0, 0, 0.78, 1)]),
    (GCOMPRIS, "erase.rcc:spoonbills.webp", 129, [(0.2, 0.22, 1, 0.8), (0, 0.2, 0.2, 0.8)]),
    (GCOMPRIS, "erase.rcc:toucan.webp", 96, [(0, 0.1, 0.31, 0.26)]),
    (GCOMPRIS, "erase.rcc:squirrel.webp", 335, [(0, 0.05, 0.75, 0.97)]),
    (GCOMPRIS, "erase.rcc:kitten.webp", 282, [(0.15, 0.15, 0.85, 0.97)]),
    (GCOMPRIS, "erase.rcc:horse.webp", 339, [(0, 0.03, 0.73, 1)]),
    (GCOMPRIS, "erase.rcc:meerkats.webp", 299, [(0.05, 0.1, 0.93, 0.95)]),
    (GCOMPRIS, "explore_farm_animals.rcc:chicken.webp", 8, [(0.26, 0.05, 0.84, 0.82), (0.82, 0.15, 1, 0.82)]),
    (GCOMPRIS, "explore_farm_animals.rcc:sheep.webp", 348, [(0.07, 0.06, 0.83, 0.97)]),
    (GCOMPRIS, "explore_farm_animals.rcc:cow.webp", 345, [(0.08, 0.35, 1, 0.97)]),
    (GCOMPRIS, "explore_farm_animals.rcc:duck.webp", 97, [(0.03, 0.17, 0.88, 0.97)]),
    (GCOMPRIS, "explore_farm_animals.rcc:owl.webp", 24, [(0.54, 0.15, 1, 1)]),
    (GCOMPRIS, "explore_farm_animals.rcc:pig.webp", 341, [(0, 0.18, 0.68, 0.88)]),
    (GCOMPRIS, "explore_world_animals.rcc:bison.webp", 347, [(0.03, 0.06, 0.97, 0.8)]),
    (GCOMPRIS, "explore_world_animals.rcc:crocodile.webp", 49, [(0, 0.28, 1, 0.82)]),
    (GCOMPRIS, "explore_world_animals.rcc:dragon.webp", 48, [(0, 0.28, 1, 0.96)]),
    (GCOMPRIS, "explore_world_animals.rcc:jaguar.webp", 290, [(0.02, 0.3, 0.45, 0.9), (0.42, 0.22, 1, 0.9)]),
    (GCOMPRIS, "explore_world_animals.rcc:kangaroo.webp", 104, [(0, 0, 0.6, 0.95), (0.52, 0.58, 0.96, 0.95)]),
    (GCOMPRIS, "explore_world_animals.rcc:koala.webp", 105, [(0.07, 0.1, 0.9, 1)]),
    (
        GCOMPRIS,
        "explore_world_animals.rcc:lemur.webp",
        383,
        [(0.25, 0.26, 0.8, 1), (0, 0, 0.34, 0.6), (0.78, 0.48, 1, 1)],
    ),
    (GCOMPRIS, "explore_world_animals.rcc:polar_bear.webp", 296, [(0.1, 0.3, 1, 0.8)]),
    (GCOMPRIS, "explore_world_animals.rcc:scarlet_macaw.webp", 88, [(0.08, 0.07, 1, 0.97)]),
    (GCOMPRIS, "explore_monuments.rcc:tajMahal.webp", 668, [(0.15, 0.18, 0.9, 0.82)]),
    (GCOMPRIS, "explore_monuments.rcc:pontduGard.webp", 888, [(0, 0.18, 1, 0.85)]),
    (GCOMPRIS, "explore_monuments.rcc:neuschwansteinCastle.webp", 483, [(0, 0.05, 0.9, 0.85)]),
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

_CUT_OUTS_OF_COCO = {  # file of the package, COCO class
    "animals/birds/hen.png": 14,
    "animals/birds/gander.png": 14,
    "animals/birds/peacock.png": 14,
    "animals/birds/pink_flamingo.png": 14,
    "animals/birds/rooster.png": 14,
    "animals/birds/duck.png": 14,
    "animals/birds/pelican.png": 14,
    "animals/birds/ostrich.png": 14,
    "animals/mammals/equines/zebra.png": 22,
    "animals/mammals/elephant.png": 20,
    "animals/mammals/giraffe.png": 23,
    "animals/mammals/bears/bear.png": 21,
    "animals/mammals/bears/european-bear.png": 21,
    "animals/mammals/bovines/sheep.png": 18,
    "animals/mammals/bovines/ram.png": 18,
    "animals/mammals/bovines/cow.png": 19,
    "animals/mammals/bovines/bull.png": 19,
    "animals/mammals/equines/horse.png": 17,
    "animals/mammals/equines/donkey.png": 17,
    "animals/mammals/dogs/dog.png": 16,
    "animals/mammals/dogs/dingo.png": 16,
    "animals/mammals/bears/toys/edward_bear.png": 77,
    "vehicles/emergency/firetruck.png": 7,
    "vehicles/garbagetruck.png": 7,
    "vehicles/masstransit/green_korean_bus.png": 5,
    "sports/basketball.png": 32,
    "sports/soccer.png": 32,
    "sports/tennis_ball.png": 32,
    "sports/tennis_racket.png": 38,
    "vehicles/flight/planes/747.png": 4,
    "military/vehicles/f22_raptor.png": 4,
    "food/fruit/mandarine.png": 49,
    "food/vegetables/broccoli.png": 50,
    "household/toilet.png": 61,
}


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
        yield Picture(np.array(_cropped(_opened(package, name), size, _CROP)), [(category, inside)])


def scenes(size: int, count: int, seed: int = 0, of_coco: bool = False) -> Iterator[Picture]:
    """Two cut-outs of different classes, 30 to 50 % of the side, anywhere without touching, on a real background.

    of_coco: whether of COCO's classes, else of ImageNet's.
    """
    generator = random.Random(seed)
    folder = STAMPS.folder() / "usr/share/tuxpaint/stamps"
    cut_outs = sorted((_CUT_OUTS_OF_COCO if of_coco else _CUT_OUTS).items())
    while count:
        package, name = generator.choice(_BACKGROUNDS)
        canvas = _cropped(_opened(package, name), size, generator.uniform(0.5, 1))
        objects: list[tuple[int, np.ndarray]] = []
        for file, category in generator.sample(cut_outs, 2):
            place = _pasted(canvas, folder / file, generator, [inside for _, inside in objects])
            objects += [] if place is None else [(category, place)]
        if len({category for category, _ in objects}) == 2:
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


def _opened(package: Package, name: str) -> Image.Image:
    """The picture of a name: a file, or COLLECTION:FILE of a Qt resource collection."""
    file, _, member = name.partition(":")
    found = package.file(file)
    return Image.open(io.BytesIO(files_of(found)[member]) if member else found).convert("RGB")


def _cropped(picture: Image.Image, size: int, share: float) -> Image.Image:
    """The share of the short side in the middle of the picture, at this size."""
    scale = size / share / min(picture.size)
    picture = picture.resize([round(length * scale) for length in picture.size], Image.Resampling.BICUBIC)
    left, top = (round((length - size) / 2) for length in picture.size)
    return picture.crop((left, top, left + size, top + size))
