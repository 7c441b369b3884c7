"""`GradCAM(model)(x)`: inputs, outputs, layouts and wrappers of every kind, and why a map is blank."""

import warnings
from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from nets import SIZES, Transformer, convolutional, images, in_threads
from torch import nn

from pytorch_grad_cam import FEM, AblationCAM, EigenCAM, GradCAM, LayerCAM, ScoreCAM
from pytorch_grad_cam.engine.cam_warning import CamWarning
from pytorch_grad_cam.engine.inputs import image_of, rows_of, with_image
from pytorch_grad_cam.engine.targets import scores_in
from pytorch_grad_cam.locate import layout_of, locate, suggest_layers
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from pytorch_grad_cam.utils.reshape_transforms import vit_reshape_transform


def test_the_choice_is_reported():
    cam = GradCAM(convolutional())
    assert cam.location is None
    cam(images(), 3)
    assert cam.target_layers == [cam.model.last]
    assert str(cam.location).startswith("last (ReLU), output (1, 8, 6, 8): NCSS, grid 6 x 8; the last map")


def test_one_search_for_each_size():
    model = Transformer()
    forwards = []
    model.register_forward_hook(lambda *_: forwards.append(1))
    with GradCAM(model) as cam:
        cam(torch.randn(2, 3, 12, 16), 3)
        searched = len(forwards) - 1
        assert searched == 2, "noise for the tokens, the check of the place; the first forward is the call's own"
        cam(torch.randn(1, 3, 12, 16), 1)
        assert len(forwards) == searched + 2
        cam(torch.randn(1, 3, 16, 12), 1)
        cam(torch.randn(1, 3, 12, 16), 1)
        assert len(forwards) == 2 * searched + 4
    with pytest.raises(RuntimeError, match="released"):
        cam(torch.randn(1, 3, 12, 16), 1)
    assert not any(module._forward_hooks for name, module in model.named_modules() if name)


def test_threads_share_a_search():
    model = Transformer()
    batches = [torch.randn(2, 3, 12, 16), torch.randn(2, 3, 16, 12), torch.randn(1, 3, 12, 12)] * 2
    expected = [GradCAM(model)(x, 3) for x in batches]
    found = [None] * len(batches)
    with GradCAM(model) as cam:

        def work(index):
            for _ in range(5):
                found[index] = cam(batches[index], 3)

        in_threads(work, len(batches))
    for maps, reference in zip(found, expected, strict=True):
        np.testing.assert_allclose(maps, reference, atol=1e-6)


@pytest.mark.except_for("RandomCAM", reason="draws new weights for each image and call")
@pytest.mark.except_for("FullGrad", reason="uses the biases of all layers")
@pytest.mark.except_for("PathCAM", reason="of its path a transform by hand reads only maps of its own shape")
@pytest.mark.except_for("SESS", reason="its windows are square, the test's transform is not")
def test_layout_of_a_given_layer_is_found(method):
    model, x = Transformer(), images()
    expected = method(model, model.norm, lambda tokens: vit_reshape_transform(tokens, 3, 4))(x, 3)
    np.testing.assert_allclose(method(model, model.norm)(x, 3), expected, atol=1e-6)
    np.testing.assert_allclose(method(model, "norm")(x, 3), expected, atol=1e-6)


class ChannelsLast(nn.Module):
    """A map (N, H, W, C), as Swins have it."""

    def __init__(self):
        super().__init__()
        self.body = convolutional()[:4]
        self.last = nn.LayerNorm(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.last(self.body(x).movedim(1, -1)).mean((1, 2)))


def test_channels_last_are_recognised():
    model, x = ChannelsLast().eval(), images()
    assert layout_of(model, x, model.last).axes == "NSSC"
    expected = LayerCAM(model, model.last, lambda tensor: tensor.movedim(-1, 1))(x, 3)
    np.testing.assert_array_equal(LayerCAM(model, model.last)(x, 3), expected)
    np.testing.assert_array_equal(LayerCAM(model)(x, 3), expected)


def test_a_layer_of_unknown_layout_is_refused():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = convolutional()
            self.odd = nn.Identity()

        def forward(self, x):
            x = self.net[:4](x)
            return self.net[4:](self.odd(x.flatten(1)).unflatten(1, x.shape[1:]))

    model = Odd().eval()
    with pytest.raises(
        ValueError, match=r"gives \(2, 384\), which is no map of the 12x16 input: pass a reshape_transform"
    ):
        GradCAM(model, model.odd)(images(), 3)


def test_suggestions_are_the_choice_and_one_for_each_grid():
    class Pyramid(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, stride=2, padding=1)
            self.three, self.head = nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.Linear(8, 5)

        def forward(self, x):
            return self.head(self.three(self.two(self.one(x).relu()).relu()).relu().mean((2, 3)))

    names = [location.name for location in suggest_layers(Pyramid(), images())]
    assert names == ["three", "two", "one"]
    assert suggest_layers(Pyramid(), images())[0].name == locate(Pyramid(), images()).name


Output = namedtuple("Output", ["logits", "features"])


@dataclass
class Structured:
    features: torch.Tensor
    logits: torch.Tensor


OUTPUTS = {
    "tensor": lambda logits: logits,
    "dict of logits": lambda logits: {"loss": None, "features": logits[:, None, None], "logits": logits},
    "dict of out": lambda logits: {"aux": 0 * logits, "out": logits},
    "dict without a known key": lambda logits: {"loss": logits.sum(), "prediction": logits},
    "named tuple": lambda logits: Output(logits, logits[:, :2]),
    "tuple": lambda logits: (logits, [logits, logits]),
    "tuple of a dict": lambda logits: ({"logits": logits}, 3),
    "list of tensors": lambda logits: [logits, logits[:, :, None]],
    "dataclass": lambda logits: Structured(logits[:, :2], logits),
}


class Wrapped(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.net = convolutional()
        self.wrap = wrap

    def forward(self, x):
        return self.wrap(self.net(x))


@pytest.mark.slow
@pytest.mark.except_for("RandomCAM", reason="draws new weights for each image and call")
@pytest.mark.parametrize("kind", OUTPUTS)
@pytest.mark.parametrize("targets", [None, 3, [ClassifierOutputTarget(3), 1]])
def test_scores_are_found_in_outputs(method, kind, targets):
    x = images()
    model = Wrapped(OUTPUTS[kind]).eval()
    options = {"num_scales": 1} if method.__name__ == "SESS" else {}
    layers = [model.net.last] if method.uses_layers else []
    found = method(model, layers, **options)(x, targets)
    expected = method(model.net, layers, **options)(x, targets)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_output_transform_overrides():
    x = images()
    model = Wrapped(lambda logits: {"logits": 0 * logits, "mine": {"deep": logits}}).eval()
    for method in (GradCAM, ScoreCAM, AblationCAM):
        with method(model, output_transform=lambda output: output["mine"]["deep"]) as cam:
            np.testing.assert_allclose(cam(x, 3), method(model.net, "last")(x, 3), atol=1e-6)
            assert set(cam.outputs) == {"logits", "mine"}


def test_detections_stay_a_list():
    detections = [{"boxes": torch.zeros(0, 4)}, {"boxes": torch.zeros(1, 4)}]
    assert scores_in(detections) is detections


class ImageAndMeta(nn.Module):
    """Logits of an image, shifted and scaled by other inputs of the same sample; `scale` is not batched."""

    def __init__(self):
        super().__init__()
        self.net = convolutional()
        torch.manual_seed(5)
        self.mix = nn.Linear(4, 5)

    def forward(self, image, meta, scale=None):
        logits = self.net(image) * (1 + self.mix(meta).tanh())
        return logits if scale is None else logits * scale


@pytest.mark.slow
@pytest.mark.except_for("RandomCAM", reason="draws new weights for each image and call")
@pytest.mark.parametrize("form", ["tuple", "mapping"])
def test_models_with_several_inputs(method, form):
    model, x = ImageAndMeta().eval(), images()
    meta, scale = torch.randn(2, 4), torch.tensor(2.0)
    inputs = (x, meta, scale) if form == "tuple" else {"meta": meta, "image": x, "scale": scale}
    options = {"num_scales": 2} if method.__name__ == "SESS" else {}
    layers = [model.net.last] if method.uses_layers else []
    cam = method(model, layers, **options)
    maps = cam(inputs, [3, 1], aug_smooth=True)
    assert maps.shape == (2, *SIZES[2])
    for sample, category in enumerate((3, 1)):

        class One(nn.Module):
            def __init__(self, meta):
                super().__init__()
                self.whole, self.meta = model, meta

            def forward(self, image):
                return self.whole(image, self.meta.expand(len(image), -1), scale)

        alone = method(One(meta[sample : sample + 1]).eval(), layers, **options)
        np.testing.assert_allclose(maps[sample], alone(x[sample : sample + 1], category, aug_smooth=True)[0], atol=1e-5)


def test_layer_is_found_for_several_inputs():
    model, x = ImageAndMeta().eval(), images()
    with GradCAM(model) as cam:
        maps = cam({"image": x, "meta": torch.zeros(2, 4)}, 3)
        assert cam.location.name == "net.last"
    assert maps.max() == 1


def test_spatial_from_says_which_input_is_the_image():
    class TwoImages(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = convolutional(), convolutional(seed=7)

        def forward(self, one, two):
            return self.first(one) + self.second(two)

    model = TwoImages().eval()
    one, two = torch.randn(1, 3, 12, 16), torch.randn(1, 3, 16, 24)
    assert GradCAM(model, [model.first.last])((one, two), 3).shape == (1, 12, 16)
    maps = GradCAM(model, [model.second.last], spatial_from=1)((one, two), 3)
    np.testing.assert_allclose(maps, GradCAM(model.second, ["last"])(two, 3), atol=1e-6)
    maps = GradCAM(model, spatial_from="two")({"one": one, "two": two}, 3)
    np.testing.assert_allclose(maps, GradCAM(model.second, ["last"])(two, 3), atol=1e-6)


def test_inputs_without_an_image():
    with pytest.raises(TypeError, match=r"has no floating-point tensor \(N, C, \*spatial\)"):
        GradCAM(convolutional(), "last")((torch.zeros(2, 4), 3), 1)


def test_image_among_the_inputs():
    x, meta = torch.randn(2, 3, 4, 5), torch.arange(2)
    inputs = {"meta": meta, "x": x, "name": "photo"}
    assert image_of(inputs) is x
    assert with_image(inputs, -x)["x"].equal(-x)
    rows = rows_of(inputs, torch.tensor([1, 1, 0]), 2)
    assert rows["x"].equal(x[[1, 1, 0]])
    assert rows["meta"].tolist() == [1, 1, 0]
    assert rows["name"] == "photo"


class Siamese(nn.Module):
    """The same backbone on both halves of the channels."""

    def __init__(self):
        super().__init__()
        self.net = convolutional()

    def forward(self, x):
        return self.net(x[:, :3]) - 2 * self.net(x[:, 3:])


@pytest.mark.parametrize("one_run", [GradCAM, EigenCAM, AblationCAM])
def test_call_index_picks_a_run(one_run):
    model = Siamese().eval()
    torch.manual_seed(0)
    x = torch.randn(2, 6, 12, 16)
    first = one_run(model, [model.net.last], call_index=0)(x, 3)
    last = one_run(model, [model.net.last], call_index=-1)(x, 3)
    np.testing.assert_array_equal(one_run(model, [model.net.last], call_index=1)(x, 3), last)
    np.testing.assert_allclose(first, one_run(model.net, ["last"])(x[:, :3], 3), atol=1e-5)
    negative = one_run(model.net, ["last"])(x[:, 3:], lambda logits: -2 * logits[3])
    np.testing.assert_allclose(last, negative, atol=1e-5)
    with pytest.raises(IndexError, match="call_index is 2, but ReLU ran 2 times"):
        one_run(model, [model.net.last], call_index=2)(x, 3)


@pytest.mark.slow
def test_wrapped_models_are_unwrapped():
    model, x = convolutional(), images()
    expected = GradCAM(model, "last")(x, 3)
    for wrapped in (nn.DataParallel(model), torch.compile(model), torch.compile(nn.DataParallel(model))):
        cam = GradCAM(wrapped)
        np.testing.assert_array_equal(cam(x, 3), expected)
        assert cam.model is model
        np.testing.assert_array_equal(GradCAM(wrapped, [model.last])(x, 3), expected)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="torch >= 2.6")
def test_model_compiled_in_place():
    model, x = convolutional(), images()
    expected = GradCAM(model, "last")(x, 3)
    model.compile(backend="eager")
    model(x)
    np.testing.assert_allclose(GradCAM(model, "last")(x, 3), expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "export",
    [
        lambda m, x: torch.jit.trace(m, x),
        lambda m, x: torch.export.export(m, (x,)),
        lambda m, x: torch.export.export(m, (x,)).module(),
    ],
)
def test_exported_models_are_refused(export):
    model, x = convolutional(), images()
    with pytest.raises(TypeError, match=r"has no layers that can be watched: pass the nn\.Module that it was made of"):
        GradCAM(export(model, x))


def warning_of(model, layer, x, targets=3, method=GradCAM, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        maps = method(model, layer, **options)(x, targets)
    (message,) = [str(warning.message) for warning in caught if warning.category is CamWarning]
    return maps, message


@pytest.mark.except_for("RandomCAM", reason="its weights may leave no positive evidence")
def test_no_warning_without_reason(method):
    model, x = convolutional(), images()
    with warnings.catch_warnings():
        warnings.simplefilter("error", CamWarning)
        method(model, ["last"] if method.uses_layers else [])(x, 3)


def test_blank_for_no_positive_evidence():
    model, x = convolutional(), images()
    maps, message = warning_of(nn.Sequential(*model[:4], Negative()).eval(), "3", x, 0)
    assert message == "2 of 2 maps are blank: no positive evidence, all that the layer says speaks against the target"
    assert not maps.any()


class Negative(nn.Module):
    def forward(self, x):
        return -x.mean((2, 3))


def test_blank_for_a_gradient_of_zero_names_another_layer():
    model, x = Transformer(), images(count=1)
    maps, message = warning_of(model, "after", x)
    assert message.startswith("the map is blank: zero gradient, the score does not depend on these positions")
    assert "try target_layers=['norm']" in message
    assert not maps.any()


def test_blank_for_constant_activations():
    model, x = convolutional(), images()
    pooled = nn.Sequential(*model[:4], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()
    maps, message = warning_of(pooled, "4", x)
    assert (
        message
        == "2 of 2 maps are blank: constant activations, the layer is the same at all positions (or has only one)"
    )
    assert not maps.any()


def test_blank_for_non_finite_values():
    model, x = convolutional(), images()
    x[1, 0, 3, 4] = torch.inf
    maps, message = warning_of(model, "last", x)
    assert (
        message
        == "1 of 2 maps are blank: non-finite values in the layer (an overflow? run the model in float32 or bfloat16)"
    )
    assert maps[0].max() == 1
    assert not maps[1].any()


def test_distributed_data_parallel():
    net, x = convolutional(), images()
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(net)
        np.testing.assert_array_equal(GradCAM(wrapped)(x, 1), GradCAM(net)(x, 1))
    finally:
        torch.distributed.destroy_process_group()


def test_a_blank_map_of_a_method_without_targets_speaks_against_none():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model[0].bias.data -= 100
    with pytest.warns(CamWarning, match="this method makes of the layer has nothing above zero") as issued:
        assert not FEM(model, "0", check_place=False)(images(), 3).any()
    assert "target" not in str(issued[0].message)


def test_a_transform_for_another_size_of_the_image():
    """Twelve cells of eight channels are asked for: of 24 tokens they get sixteen each, of two tokens."""
    model = Transformer().eval()

    def transform(tokens):
        return tokens[:, 1:].reshape(len(tokens), 3, 4, -1).permute(0, 3, 1, 2)

    cam = GradCAM(model, "norm", transform)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cam(images(), 3)
    with pytest.warns(CamWarning, match=r"gives 16 channels, but the layer returns \(2, 25, 8\): its height and width"):
        cam(torch.randn(2, 3, 24, 16), 3)
