"""Targets that mean a place of the image, so that they are nothing for one that is flipped, scaled or cut out."""

from __future__ import annotations

from typing import Any


class OfPlace:
    """A target of this package. is_of_place: whether it means another thing where the image is flipped or cut."""

    is_of_place: bool


def check_same_image(targets: Any) -> None:
    """Raise ValueError where a box or a region is asked for and other images than the given one are to be explained."""
    if isinstance(targets, list | tuple):
        for target in targets:
            check_same_image(target)
    elif isinstance(targets, OfPlace) and targets.is_of_place:
        raise ValueError(
            "a box or a region is asked for, but the images to be explained are flipped, scaled or cut out, where it "
            "lies elsewhere: leave out aug_smooth, and take a method that explains the image as a whole"
        )
