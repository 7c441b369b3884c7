"""Probabilities at 0 or 1, whose gradient rounding loses: the logit in front of them is explained, with a warning."""

import gc
import warnings
import weakref

import numpy as np
import pytest
import torch
from nets import convolutional, images
from torch import nn

from pytorch_grad_cam import FullGrad, GradCAM, GuidedBackpropReLUModel, LayerCAM, ShapleyCAM
from pytorch_grad_cam.engine.cam_warning import CamWarning
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

LOST = "so near to 0 or 1 that rounding loses its gradient: .*the logit in front of it"
ENDS = {
    "softmax": nn.Softmax(1),
    "sigmoid": nn.Sigmoid(),
    "log-softmax": nn.LogSoftmax(1),
}


class Ending(nn.Module):
    """A network that is sure, and what it ends with."""

    def __init__(self, end, scale=1e3):
        super().__init__()
        self.net, self.end, self.scale = convolutional(), end, scale

    def forward(self, x):
        return self.end(self.scale * self.net(x))


def sure_class(scale=1e3):
    x = images(count=1)
    return x, int((scale * convolutional()(x)).argmax())


@pytest.mark.parametrize("layers", ["net.last", None])
@pytest.mark.parametrize("cam_class", [GradCAM, LayerCAM, ShapleyCAM])
@pytest.mark.parametrize("end", ENDS)
def test_the_logit_is_explained_where_the_probability_has_no_gradient(end, cam_class, layers):
    x, category = sure_class()
    with pytest.warns(CamWarning, match=LOST):
        found = cam_class(Ending(ENDS[end]), layers)(x, category)
    np.testing.assert_allclose(found, cam_class(Ending(nn.Identity()), "net.last")(x, category), atol=1e-6)
    assert found.max() == 1


def test_a_sure_score_that_was_chosen_by_topk():
    """torchvision's detectors with one stage do so."""

    class Detector(Ending):
        def forward(self, x):
            return [{"best": sample.topk(2).values} for sample in super().forward(x)]

    x, category = sure_class()
    with pytest.warns(CamWarning, match=LOST):
        found = GradCAM(Detector(nn.Softmax(1)), "net.last")(x, lambda output: output["best"][0])
    np.testing.assert_allclose(found, GradCAM(convolutional(), "last")(x, category), atol=1e-6)


@pytest.mark.parametrize("end", [*ENDS, "a healthy one"])
def test_a_probability_with_a_gradient_is_explained_itself(end):
    x = images()
    model = Ending(ENDS.get(end, nn.Softmax(1)), scale=3.0)
    exact = GradCAM(Ending(model.end, scale=3.0).double(), "net.last")(x.double(), 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(GradCAM(model, "net.last")(x, 3), exact, atol=1e-4)


def test_a_probability_that_rounding_has_spoilt_but_not_to_zero():
    """The other classes' gradients are there, so the map is not blank: it would be theirs alone."""
    x, category = sure_class()
    logits = convolutional()(x)[0]
    scale = float(17.5 / (logits.sort().values[-1] - logits.sort().values[-2]))
    model = Ending(nn.Softmax(1), scale)
    assert 0 < 1 - model.double()(x.double())[0, category] < 1e-7
    with pytest.warns(CamWarning, match=LOST):
        found = GradCAM(model.float(), "net.last")(x, category)
    np.testing.assert_allclose(found, GradCAM(Ending(nn.Identity()), "net.last")(x, category), atol=1e-6)


def test_a_class_far_from_probable():
    x, category = sure_class()
    other = (category + 1) % 5
    with pytest.warns(CamWarning, match=LOST):
        found = GradCAM(Ending(nn.Sigmoid(), -1e3), "net.last")(x, [category])
    np.testing.assert_allclose(found, GradCAM(Ending(nn.Identity(), -1e3), "net.last")(x, category), atol=1e-6)
    with pytest.warns(CamWarning, match=LOST):
        GradCAM(Ending(nn.Softmax(1)), "net.last")(x, other)


@pytest.mark.parametrize(
    "end",
    [
        lambda logits: logits.softmax(1)[:, :, None].squeeze(2),
        lambda logits: logits.double().softmax(1).float(),
        lambda logits: torch.cat([logits.softmax(1), logits[:, :1].sigmoid()], 1)[:, :5],
        lambda logits: {"probabilities": logits.softmax(1)},
    ],
)
def test_behind_views_slices_and_conversions(end):
    x, category = sure_class(1e6)
    with pytest.warns(CamWarning, match=LOST):
        found = GradCAM(Ending(end, 1e6), "net.last")(x, category)
    np.testing.assert_allclose(found, GradCAM(Ending(nn.Identity()), "net.last")(x, category), atol=1e-6)


@pytest.mark.parametrize(
    "target", [lambda output: output[0], ClassifierOutputSoftmaxTarget(0)], ids=["callable", "own"]
)
def test_callables(target):
    x = images(count=1)
    end = nn.Identity() if isinstance(target, ClassifierOutputSoftmaxTarget) else nn.Softmax(1)
    with pytest.warns(CamWarning, match=LOST):
        found = GradCAM(Ending(end), "net.last")(x, target)
    np.testing.assert_allclose(found, GradCAM(Ending(nn.Identity()), "net.last")(x, 0), atol=1e-6)


def test_each_image_and_each_class_for_itself():
    """One image is sure, the other is not; of it the probability is explained."""
    x, scale = images(), torch.tensor([[350.0], [3.0]])
    model = Ending(nn.Softmax(1), scale)
    classes = [[category, (category + 1) % 5] for category in model(x).argmax(1).tolist()]
    assert model(x)[0].amax() > 1 - 1e-6
    assert model(x)[1].amax() < 0.9999
    with pytest.warns(CamWarning, match=LOST) as warned:
        found = GradCAM(model, "net.last")(x, classes)
    assert len(warned) == 1
    of_logits = GradCAM(Ending(nn.Identity()), "net.last")(x, classes)
    of_probabilities = GradCAM(Ending(nn.Softmax(1), scale).double(), "net.last")(x.double(), classes)
    np.testing.assert_allclose(found[0, 0], of_logits[0, 0], atol=1e-6)
    np.testing.assert_allclose(found[1], of_probabilities[1], atol=1e-4)


def test_other_ways_of_differentiating():
    x, category = sure_class()
    with pytest.warns(CamWarning, match=LOST):
        found = GuidedBackpropReLUModel(Ending(nn.Softmax(1)))(x, category)
    assert np.abs(found).max() > 0
    with pytest.warns(CamWarning, match=LOST):
        full = FullGrad(Ending(nn.Softmax(1)))(x, category)
    np.testing.assert_allclose(full, FullGrad(Ending(nn.Identity()))(x, category), atol=1e-5)


def test_the_users_graph_is_left_alone():
    x, category = sure_class(1e6)
    model = Ending(nn.Softmax(1), 1e6)
    with pytest.warns(CamWarning, match=LOST):
        GradCAM(model, "net.last")(x, category)
    model(x)[0, category].backward()
    assert all(not parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("end", [lambda x: 1 - (1 - x.softmax(1)), lambda x: x.softmax(1) * 1])
def test_the_reason_where_the_graph_does_not_show_it(end):
    """A sigmoid has no other classes, whose gradients are left; a product is not looked behind."""
    x, category = sure_class(1e6)
    with pytest.warns(CamWarning, match=r"blank: the score is a probability at 1, which has no gradient.*logit"):
        assert not GradCAM(Ending(end, 1e6), "net.last")(x, category).any()
    with pytest.warns(CamWarning, match=r"blank: the score is a probability at 1, which has no gradient.*logit"):
        assert not FullGrad(Ending(end, 1e6))(x, category).any()
    with pytest.warns(CamWarning, match=r"blank: the score is a probability at 0, which has no gradient"):
        assert not GradCAM(Ending(end, 1e6), "net.last")(x, (category + 1) % 5).any()


def test_a_score_of_one_that_is_no_probability():
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = convolutional()

        def forward(self, x):
            return 0 * self.net(x) + torch.tensor([1.0, 2, 3, 4, 5])

    with pytest.warns(CamWarning, match="zero gradient, the score does not depend"):
        GradCAM(Constant(), "net.last")(images(), 0)


class Watched(torch.autograd.Function):
    """The identity; its node in the graph has a part that can be watched."""

    watched: list = []  # noqa: RUF012

    @staticmethod
    def forward(ctx, x):
        ctx.part = nn.Module()
        Watched.watched.append(weakref.ref(ctx.part))
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def test_the_graph_is_freed_without_the_collector():
    x, category = sure_class()
    gc.disable()
    try:
        with pytest.warns(CamWarning, match=LOST):
            GradCAM(Ending(lambda logits: Watched.apply(logits).softmax(1)), "net.last")(x, category)
        assert {part() for part in Watched.watched} == {None}
    finally:
        gc.enable()


def test_scores_that_are_not_finite_are_no_probabilities():
    model, x = convolutional(2), images(2)
    model.last.register_forward_hook(lambda module, inputs, output: output.index_fill(0, torch.tensor([1]), torch.nan))
    with pytest.warns(CamWarning, match="1 of 2 maps are blank: zero gradient, the score does not depend"):
        GradCAM(model, model.last)(x, 1)
