"""What classes of grad-cam 1.x may do: call `super()`, replace points of a class or object, read what was captured."""

import numpy as np
import pytest
import torch
from nets import convolutional, images
from torch import nn

from pytorch_grad_cam import (
    AblationCAM,
    ActivationsAndGradients,
    BaseCAM,
    CamWarning,
    EigenCAM,
    FullGrad,
    GradCAM,
    HiResCAM,
    LayerCAM,
    RefineCAM,
    ScoreCAM,
    ShapleyCAM,
)

BOTH = ["first", "last"]


class Scaled(nn.Module):
    """A network with a second input."""

    def __init__(self) -> None:
        super().__init__()
        self.net = convolutional()

    def forward(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return self.net(x * scale)


class Twice(nn.Module):
    """A layer that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv, self.act = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()
        self.head = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(2):
            x = self.act(self.conv(x))
        return self.head(x.mean((2, 3)))


class FrozenStem(nn.Module):
    """A stem that runs under no_grad."""

    def __init__(self) -> None:
        super().__init__()
        self.net = convolutional()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            x = self.net[:2](x)
        return self.net[2:](x)


def through(ours: type, point: str) -> type:
    """A subclass whose override of the point does nothing but call `super()`."""

    def call_super(self, *args, **kwargs):
        return getattr(super(cls, self), point)(*args, **kwargs)

    call_super.__name__ = point
    cls = type("Through", (ours,), {point: call_super, "__module__": __name__})
    return cls


@pytest.mark.parametrize("layers", [["last"], BOTH])
def test_super_of_aggregation_gives_arrays(layers):
    class Squared(GradCAM):
        def aggregate_multi_layers(self, cam_per_target_layer):
            joined = super().aggregate_multi_layers(cam_per_target_layer)
            assert isinstance(joined, np.ndarray)
            return joined**2

    expected = GradCAM(convolutional(), layers)(images(), 1) ** 2
    np.testing.assert_allclose(Squared(convolutional(), layers)(images(), 1), expected, atol=1e-6)


@pytest.mark.parametrize("ours", [GradCAM, ShapleyCAM, HiResCAM, AblationCAM, FullGrad])
@pytest.mark.parametrize("point", ["forward", "compute_cam_per_layer", "get_cam_image", "aggregate_multi_layers"])
def test_super_changes_nothing(ours, point):
    if ours is FullGrad and point != "forward":
        pytest.skip("has one map of all biases")
    layers = None if ours is FullGrad else BOTH
    for targets in (1, [[1, 2], [2, 3]]):
        expected = ours(convolutional(), layers)(images(), targets)
        np.testing.assert_allclose(
            through(ours, point)(convolutional(), layers)(images(), targets), expected, atol=1e-6
        )


@pytest.mark.parametrize("point", ["forward", "compute_cam_per_layer"])
def test_steps_behind_a_stem_without_gradients(point):
    expected = GradCAM(FrozenStem(), "net.last")(images(), 1)
    np.testing.assert_allclose(through(GradCAM, point)(FrozenStem(), "net.last")(images(), 1), expected, atol=1e-6)


def test_steps_have_the_inputs_gradient():
    class Kept(GradCAM):
        def compute_cam_per_layer(self, input_tensor, targets, eigen_smooth):
            self.kept = input_tensor.grad
            return super().compute_cam_per_layer(input_tensor, targets, eigen_smooth)

    cam = Kept(convolutional(), "last", compute_input_gradient=True)
    cam(images(), 1)
    assert cam.kept.abs().sum() > 0


@pytest.mark.parametrize("ours", [AblationCAM, ScoreCAM])
@pytest.mark.parametrize("point", ["get_cam_weights", "get_cam_image"])
class TestSuperKnowsTheRun:
    def test_other_inputs(self, ours, point):
        x = images(), torch.tensor([1.0, 2.0])[:, None, None, None]
        expected = ours(Scaled(), "net.last", spatial_from=0)(x, 1)
        np.testing.assert_allclose(through(ours, point)(Scaled(), "net.last", spatial_from=0)(x, 1), expected)

    def test_run(self, ours, point):
        expected = ours(Twice(), "act", call_index=1)(images(), 1)
        np.testing.assert_allclose(through(ours, point)(Twice(), "act", call_index=1)(images(), 1), expected)

    def test_registration(self, ours, point):
        options = {"align": "receptive_field"}
        expected = ours(convolutional(), "first", **options)(images(), 1)
        np.testing.assert_allclose(through(ours, point)(convolutional(), "first", **options)(images(), 1), expected)

    def test_other_targets(self, ours, point):
        cam = ours(convolutional(), "last")
        original = getattr(cam, point)
        second = [lambda output: output[2]] * 2
        setattr(cam, point, lambda image, layer, _, *others: original(image, layer, second, *others))
        found = cam(images(), [[1, 0], [1, 0]])
        expected = ours(convolutional(), "last")(images(), 2)
        np.testing.assert_allclose(found, np.stack([expected, expected], axis=1), atol=1e-6)


class TestReplacedOnTheClass:
    """As tests and patches of others do."""

    @pytest.mark.parametrize("ours", [GradCAM, LayerCAM, EigenCAM, AblationCAM])
    def test_image(self, ours, monkeypatch):
        class Sum(BaseCAM):
            def evidence(self, run):
                return run.activations.sum(1)

        monkeypatch.setattr(ours, "get_cam_image", lambda *args: args[4].sum(1))
        expected = Sum(convolutional(), "last")(images(), 1)
        np.testing.assert_allclose(ours(convolutional(), "last")(images(), 1), expected, atol=1e-6)

    def test_weights_until_they_are_put_back(self, monkeypatch):
        cam = GradCAM(convolutional(), "last")
        before = cam(images(), 1)
        with monkeypatch.context() as patched:
            patched.setattr(GradCAM, "get_cam_weights", lambda *args: torch.ones(2, 8))
            assert np.abs(cam(images(), 1) - before).max() > 0.1
        np.testing.assert_array_equal(cam(images(), 1), before)

    @pytest.mark.parametrize("owner", [BaseCAM, GradCAM])
    def test_aggregation(self, owner, monkeypatch):
        monkeypatch.setattr(owner, "aggregate_multi_layers", lambda _, maps: maps[0][:, 0] * 0 + 0.5)
        assert (GradCAM(convolutional(), BOTH)(images(), 1) == 0.5).all()

    @pytest.mark.parametrize("owner", [BaseCAM, GradCAM])
    def test_maps_of_layers(self, owner, monkeypatch):
        monkeypatch.setattr(owner, "compute_cam_per_layer", lambda *_: [torch.eye(3).expand(2, 1, 3, 3)])
        np.testing.assert_array_equal(GradCAM(convolutional(), "last")(images(), 1), [np.eye(3)] * 2)

    def test_forward(self, monkeypatch):
        monkeypatch.setattr(GradCAM, "forward", lambda *_: np.full((2, 3, 3), 0.25))
        assert (GradCAM(convolutional(), "last")(images(), 1) == 0.25).all()


def test_smoothing_may_return_an_array():
    class Smoothed(GradCAM):
        def forward_augmentation_smoothing(self, input_tensor, targets, eigen_smooth=False):
            return np.full((2, 12, 16), 0.25)

    assert (Smoothed(convolutional(), "last")(images(), 1, aug_smooth=True) == 0.25).all()


def test_aggregation_of_several_targets_is_one_by_one():
    class OfBatch(GradCAM):
        def aggregate_multi_layers(self, cam_per_target_layer):
            assert [len(maps) for maps in cam_per_target_layer] == [2, 2]
            return np.mean(cam_per_target_layer, 0)[:, 0]

    assert OfBatch(convolutional(), BOTH)(images(), [[1, 2, 3], [2, 3, 0]]).shape == (2, 3, 12, 16)


def test_refined_warning_names_the_image():
    x = torch.cat([images(count=1), torch.zeros_like(images(count=1))])
    with pytest.warns(CamWarning) as warnings:
        RefineCAM(convolutional(), BOTH)(x, [[1, 2], [2, 3]])
    assert {tuple(warning.message.samples) for warning in warnings} <= {(0,), (1,), (0, 1)}


def test_neither_formula_nor_point():
    class Nothing(BaseCAM):
        pass

    with pytest.raises(NotImplementedError, match="neither"):
        Nothing(convolutional(), "last")(images(), 1)
    with pytest.raises(NotImplementedError, match="neither"):
        EigenCAM(convolutional(), "last").get_cam_weights(None, None, None, None, None)


def test_one_spelling_of_the_targets():
    with pytest.raises(TypeError, match="target_category"):
        GradCAM(convolutional(), "last")(images(), 1, target_category=2)


def test_rows_of_targets_may_be_any_tuples():
    expected = GradCAM(convolutional(), "last")(images(), [(1, 2), (2, 3)])
    found = GradCAM(convolutional(), "last")(images(), [torch.Size([1, 2]), torch.Size([2, 3])])
    np.testing.assert_array_equal(found, expected)


def test_steps_read_what_was_captured():
    class Reads(GradCAM):
        def compute_cam_per_layer(self, input_tensor, targets, eigen_smooth):
            hooks = self.activations_and_grads
            assert isinstance(hooks, ActivationsAndGradients)
            ((activations,), (gradients,)) = hooks.activations, hooks.gradients
            weights = gradients.mean((2, 3), keepdim=True)
            return [(weights * activations).sum(1, keepdim=True)]

    assert Reads(convolutional(), "last")(images(), 1).shape == (2, 6, 8)


def test_a_formula_on_a_point_on_a_formula():
    class Point(GradCAM):
        def get_cam_weights(self, input_tensor, target_layer, targets, activations, grads):
            return super().get_cam_weights(input_tensor, target_layer, targets, activations, grads) * 2

    class Formula(Point):
        def weigh(self, run):
            return super().weigh(run) * -1

    class Negative(GradCAM):
        def weigh(self, run):
            return super().weigh(run) * -2

    expected = Negative(convolutional(), "last")(images(), 1)
    np.testing.assert_allclose(Formula(convolutional(), "last")(images(), 1), expected, atol=1e-6)


def test_forward_is_given_a_list():
    class Listed(GradCAM):
        def forward(self, input_tensor, targets, eigen_smooth=False):
            assert isinstance(targets, list)
            return super().forward(input_tensor, targets, eigen_smooth)

    expected = GradCAM(convolutional(), "last")(images(), [1, 2], aug_smooth=True)
    np.testing.assert_array_equal(Listed(convolutional(), "last")(images(), [1, 2], aug_smooth=True), expected)
