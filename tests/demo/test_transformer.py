"""The bundled transformer: what it sees, and whether a map from its attention lies on the digit asked about."""

import numpy as np
import pytest
import torch

from benchmarks.digits import Targets, localisation, scenes_got_right
from pytorch_grad_cam import TransMM
from pytorch_grad_cam.demo.scenes import Scene, make_scene
from pytorch_grad_cam.demo.train_transformer import names_of_cells, train
from pytorch_grad_cam.demo.transformer import load_digits_transformer, own_weights


@pytest.fixture(scope="module")
def transformer():
    return load_digits_transformer()


@pytest.mark.slow
def test_maps_from_attention_lie_on_the_digit(transformer):
    """On few scenes; the whole measurement is in `python -m benchmarks.digits`."""
    scenes = scenes_got_right(transformer, 20, seed=5)
    assert len(scenes) >= 14  # 88 % of scenes on the whole
    targets = Targets(scenes)
    maps = TransMM(transformer)(targets.images, targets.labels.tolist())
    found = localisation(maps, targets.boxes, targets.others)
    assert found["hit"] >= 0.9
    assert found["wrong"] <= 0.05


def test_the_names_of_cells():
    """A token is named by the box that its centre, 4 pixels into its 8, lies in."""
    boxes = np.array([[0, 0, 12, 4], [52, 40, 64, 64]])
    scene = Scene(np.zeros((64, 64, 3), np.uint8), np.array([7, 2]), boxes, np.zeros((2, 64, 64), bool))
    names = names_of_cells(scene).reshape(8, 8, 10)
    assert names[..., 7].sum() == 0  # the first row's centres lie at 4, which the box no longer has
    rows, columns = names[..., 2].nonzero()
    assert set(rows) == {5, 6, 7}
    assert set(columns) == {6, 7}
    assert names.sum() == 6


def test_training_leaves_the_stages_as_they_are():
    rng = np.random.default_rng(1)
    before = load_digits_transformer().conv_proj.stages.state_dict()
    model = train([make_scene(rng) for _ in range(4)], epochs=1, batch_size=2)
    assert not model.training
    for name, value in model.conv_proj.stages.state_dict().items():
        assert torch.equal(value, before[name])
    kept = own_weights(model)
    assert {value.dtype for value in kept.values()} == {torch.float16}
    assert not any("stages" in name for name in kept)
