"""Several targets an image: (N, K, *spatial) from one forward, equal to K calls."""

import numpy as np
import pytest
import torch
import ttach
from every_method import COSTLY, METHODS
from nets import Transformer, convolutional, images

from pytorch_grad_cam import SESS, AblationCAM, FinerCAM, GradCAM, RandomCAM, RefineCAM, ScoreCAM

OF_CLASSES = [
    pytest.param(method, marks=pytest.mark.slow if method.__name__ in COSTLY else (), id=method.__name__)
    for method in METHODS
    if method is not RandomCAM
]
COLUMNS = ([1, 3], [4, 0], [2, 2])
ROWS = [list(row) for row in zip(*COLUMNS, strict=True)]


def layers_of(kind):
    return [] if kind.__name__ == "FullGrad" else ["first", "last"]


def few_windows(kind):
    return {"num_scales": 2} if kind is SESS else {}


@pytest.mark.parametrize("kind", OF_CLASSES)
@pytest.mark.parametrize("aug_smooth", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_as_many_calls(kind, aug_smooth):
    net, x = convolutional(), images()
    with kind(net, layers_of(kind), **few_windows(kind)) as cam:
        together = cam(x, ROWS, aug_smooth=aug_smooth, as_tensor=True)
        singly = [cam(x, column, aug_smooth=aug_smooth, as_tensor=True) for column in COLUMNS]
    assert together.shape == (2, 3, *x.shape[2:])
    torch.testing.assert_close(together, torch.stack(singly, dim=1))


@pytest.mark.parametrize("kind", [kind for kind in OF_CLASSES if kind.values != (SESS,)])
def test_tokens(kind):
    net, x = Transformer(), images()
    with kind(net, [] if kind.__name__ == "FullGrad" else ["norm"]) as cam:
        together = cam(x, ROWS, as_tensor=True)
        singly = [cam(x, column, as_tensor=True) for column in COLUMNS]
    torch.testing.assert_close(together, torch.stack(singly, dim=1))


@pytest.mark.parametrize("kind", [GradCAM, FinerCAM, RefineCAM], ids=lambda kind: kind.__name__)
def test_one_forward(kind):
    net, runs = convolutional(), []
    net.register_forward_hook(lambda *_: runs.append(1))
    kind(net, ["last"], check_place=False)(images(), ROWS)
    assert len(runs) == 1


@pytest.mark.parametrize("kind", [ScoreCAM, AblationCAM], ids=lambda kind: kind.__name__)
def test_no_more_forwards_than_for_one(kind):
    net, rows = convolutional(), []
    net.pool.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    with kind(net, ["last"]) as cam:
        cam(images(), [1, 4])
        counts = []
        for targets in ([1, 4], ROWS, [[1, lambda scores: scores.softmax(0)[2]]] * 2):
            rows.clear()
            cam(images(), targets)
            counts.append(sum(rows))
    assert len(set(counts)) == 1


@pytest.mark.parametrize("form", [tuple, torch.tensor, lambda rows: torch.tensor(rows).numpy()])
def test_forms(form):
    cam = GradCAM(convolutional(), "last")
    torch.testing.assert_close(cam(images(), form(ROWS)), cam(images(), ROWS))


def test_callables_in_rows():
    cam = GradCAM(convolutional(), "last")
    rows = [[1, lambda output: output[1] - output[2]], [1, lambda output: output[1] - output[2]]]
    maps = cam(images(), rows)
    assert (maps[:, 0] == cam(images(), 1)).all()
    assert (maps[:, 1] == cam(images(), lambda output: output[1] - output[2])).all()


@pytest.mark.parametrize("targets", [[[1, 2], [3]], [[1, 2], 3], [[], []]])
def test_different_numbers(targets):
    with pytest.raises(ValueError, match="as many for each"):
        GradCAM(convolutional(), "last")(images(), targets)


def test_augmentations_turn_the_axes_of_the_image():
    """Of signals with several targets, too: the targets are no height."""
    model, x = convolutional(1), images(1)
    cam = GradCAM(model, "last", tta_transforms=ttach.Compose([ttach.VerticalFlip()]))
    targets = [[3, 1], [2, 0]]
    np.testing.assert_allclose(cam(x, targets, aug_smooth=True), cam(x, targets), atol=1e-6)
