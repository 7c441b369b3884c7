"""Mosaics of four images, and whether a map finds its own."""

import numpy as np
import pytest
import torch

from pytorch_grad_cam.metrics.grid_pointing_game import grid_pointing_game, mosaics

CLASSES = [0, 1, 2, 3, 0, 4]


def colours(count=6, size=(5, 7)):
    """Image i has the value i + 1 everywhere."""
    return torch.arange(1.0, count + 1)[:, None, None, None].expand(-1, 3, *size)


class Brightness:
    """A map that is bright where the mosaic has the value of the class's first image."""

    def __init__(self, value_of):
        self.value_of = value_of

    def __call__(self, input_tensor, targets):
        wanted = torch.tensor([self.value_of(target) for target in targets])
        return (input_tensor[:, 0] == wanted[:, None, None]).float().numpy()


def test_a_mosaic_has_its_image_where_the_mask_is_and_three_of_other_classes():
    joined, inside = mosaics(colours(), CLASSES)
    assert joined.shape == (6, 3, 10, 14)
    assert inside.shape == (6, 10, 14)
    places = set()
    for row in range(6):
        tiles = [joined[row, 0, y : y + 5, x : x + 7].unique().tolist() for y in (0, 5) for x in (0, 7)]
        assert all(len(tile) == 1 for tile in tiles)
        found = [CLASSES[int(tile[0]) - 1] for tile in tiles]
        assert len({*found}) == 4
        assert joined[row, 0][inside[row]].unique().tolist() == [row + 1]
        assert inside[row].sum() == 35
        places.add(int(inside[row].int().argmax()))
    assert len(places) > 1


def test_the_seed_draws_the_others():
    first, again, other = (mosaics(colours(), CLASSES, seed)[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_shrunk_to_the_size_of_an_image():
    joined, inside = mosaics(colours(size=(6, 8)), CLASSES, same_size=True)
    assert joined.shape == (6, 3, 6, 8)
    assert inside.sum((1, 2)).tolist() == [12] * 6
    for row in range(6):
        assert joined[row, 0][inside[row]].max() <= 6
    large, where = mosaics(colours(size=(6, 8)), CLASSES)
    assert torch.equal(where[:, ::2, ::2], inside)
    assert torch.equal(
        large[:, :, ::2, ::2][inside[:, None].expand(-1, 3, -1, -1)], joined[inside[:, None].expand(-1, 3, -1, -1)]
    )


def test_ceiling_chance_and_the_opposite():
    images, classes = colours()[:4], [0, 1, 2, 3]
    right = Brightness(lambda category: category + 1)
    np.testing.assert_array_equal(grid_pointing_game(right, images, classes), np.ones(4))
    wrong = Brightness(lambda category: (category + 1) % 4 + 1)
    np.testing.assert_array_equal(grid_pointing_game(wrong, images, classes), np.zeros(4))

    def blank(input_tensor, targets):
        return torch.zeros(len(input_tensor), *input_tensor.shape[2:])

    np.testing.assert_allclose(grid_pointing_game(blank, images, classes), np.full(4, 0.25))
    noise = np.random.default_rng(0).random((4, 10, 14))
    found = grid_pointing_game(lambda input_tensor, targets: noise, images, classes)
    assert abs(float(found.mean()) - 0.25) < 0.05


@pytest.mark.slow
def test_the_digits_are_found(digits_net):
    """By a trained network: far above chance."""
    from pytorch_grad_cam import GradCAM, RandomCAM
    from pytorch_grad_cam.demo import preprocess_scene
    from pytorch_grad_cam.demo.scenes import make_scene

    rng = np.random.default_rng(0)
    scenes = [make_scene(rng) for _ in range(24)]
    images = preprocess_scene(np.stack([scene.image for scene in scenes]))
    classes = [int(scene.labels[0]) for scene in scenes]
    with GradCAM(digits_net, "layer4") as cam, RandomCAM(digits_net, "layer4", seed=0) as random:
        good, chance = (float(grid_pointing_game(each, images, classes).mean()) for each in (cam, random))
    assert good > 0.5
    assert chance == pytest.approx(0.25, abs=0.08)


@pytest.mark.parametrize(
    ("images", "classes", "message"),
    [
        (colours(), [0, 1, 2], "3 classes for images"),
        (colours(), [0, 1, 2, 0, 1, 2], r"classes \[0, 1, 2\]: a mosaic needs four"),
        (colours(), [7] * 6, "needs four different ones"),
        (colours()[..., 0], CLASSES, "expected one for each"),
    ],
)
def test_what_is_refused(images, classes, message):
    with pytest.raises(ValueError, match=message):
        mosaics(images, classes)
