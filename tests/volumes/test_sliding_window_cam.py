"""Maps stitched from windows are those of the whole image, where the network allows it."""

import re
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from pytorch_grad_cam import (
    CamWarning,
    EigenCAM,
    FinerCAM,
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    SlidingWindowCAM,
    XGradCAM,
    explain,
)
from pytorch_grad_cam.utils.model_targets import SegmentationTarget, SemanticSegmentationTarget
from pytorch_grad_cam.volumes.stitching import Stitching
from pytorch_grad_cam.volumes.windowed_inputs import WindowedInputs
from pytorch_grad_cam.volumes.windows import Windows

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
POOLS = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
FORWARDS = []


def encoder(rank):
    torch.manual_seed(0)
    convolution, pool = CONVOLUTIONS[rank], POOLS[rank]
    layers = [convolution(1, 6, 3, padding=1), nn.ReLU(), pool(2), convolution(6, 8, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers)


class Classifier(nn.Module):
    def __init__(self, rank):
        super().__init__()
        self.encoder, self.head = encoder(rank), nn.Linear(8, 3)

    def forward(self, image):
        FORWARDS.append(tuple(image.shape))
        return self.head(self.encoder(image).flatten(2).mean(2))


class Segmenter(nn.Module):
    """Two classes: what is bright is class 1."""

    def __init__(self, rank):
        super().__init__()
        self.encoder, self.enlarge = encoder(rank), nn.Upsample(scale_factor=2)
        self.decoder = CONVOLUTIONS[rank](8, 1, 1)
        nn.init.constant_(self.decoder.bias, 0)

    def forward(self, image):
        FORWARDS.append(tuple(image.shape))
        bright = 4 * (image - 0.9) + 0.1 * self.decoder(self.enlarge(self.encoder(image)))
        return torch.cat([-bright, bright], dim=1)


def image_of(rank, size=32):
    """Noise with two bright blobs."""
    image = 0.3 * torch.rand((1, 1, *[size] * rank), generator=torch.Generator().manual_seed(1))
    for centre, radius in ((size // 4 + 1, 4), (3 * size // 4 - 1, 3)):
        image[(..., *[slice(centre - radius, centre + radius)] * rank)] += 1
    return image


def difference(stitched, whole):
    assert whole.max() == 1
    return np.abs(stitched - whole)


@pytest.mark.parametrize("base", [GradCAM, HiResCAM, LayerCAM], ids=lambda base: base.__name__)
@pytest.mark.parametrize(
    ("network", "rank"), [(Classifier, 1), (Classifier, 2), (Classifier, 3), (Segmenter, 2), (Segmenter, 3)]
)
def test_stitched_is_whole(network, rank, base):
    """A cell sees 5 positions to each side, of its 24 the windows are 8."""
    model, image = network(rank), image_of(rank, 24)
    whole = base(model, "encoder")(image, 1)
    cam = SlidingWindowCAM(model, "encoder", base_method=base, roi_size=8, context=8, batch_size=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error", CamWarning)
        stitched = cam(image, 1)
    assert difference(stitched, whole).max() < 1e-5


@pytest.mark.parametrize("base", [GradCAMPlusPlus, XGradCAM], ids=lambda base: base.__name__)
@pytest.mark.parametrize("network", [Classifier, Segmenter])
def test_weights_by_sums_of_channels_are_of_the_whole(network, base):
    """The parts of the image differ in how much there is in them."""
    model, image = network(2), image_of(2, 32)
    whole = base(model, "encoder")(image, 1)
    cam = SlidingWindowCAM(model, "encoder", base_method=base, roi_size=8, context=8, batch_size=16)
    assert difference(cam(image, 1), whole).max() < 1e-4


@pytest.mark.parametrize("base", [GradCAM, HiResCAM], ids=lambda base: base.__name__)
@pytest.mark.parametrize("network", [Classifier, Segmenter])
def test_nothing_has_to_be_said_for_the_map_of_the_whole(network, base):
    """Cells see 5 positions to each side; the windows are MONAI's, nine of them."""
    model, image = network(2), image_of(2, 40)
    whole = base(model, "encoder")(image, 1)
    FORWARDS.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error", CamWarning)
        stitched = SlidingWindowCAM(model, "encoder", base_method=base, roi_size=20)(image, 1)
    assert difference(stitched, whole).max() < 1e-5
    assert {shape[2:] for shape in FORWARDS} == {(20, 20)}


class Decoded(nn.Module):
    """Scores read what lies around a cell, and which of it counts depends on what lies around that."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())
        self.decoder = nn.Sequential(nn.Conv2d(4, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 3, 5, padding=2))

    def forward(self, image):
        return self.decoder(self.encoder(image))


@pytest.mark.filterwarnings("ignore::pytorch_grad_cam.CamWarning")
def test_gradients_of_a_cell_depend_on_what_the_scores_around_it_see():
    model, image = Decoded(), image_of(2, 64)
    stitched = SlidingWindowCAM(model, "encoder", base_method=HiResCAM, roi_size=32)(image, 2)
    assert difference(stitched, HiResCAM(model, "encoder")(image, 2)).max() < 1e-5


def test_what_it_costs_more_is_said():
    model, image = Classifier(2), image_of(2)
    with pytest.warns(CamWarning, match="sees 5 positions to each side, so .* 16 windows instead of 9"):
        stitched = SlidingWindowCAM(model, "encoder", base_method=HiResCAM, roi_size=16)(image, 1)
    assert difference(stitched, HiResCAM(model, "encoder")(image, 1)).max() < 1e-5


def test_overlap_instead_of_context():
    model, image = Classifier(2), image_of(2, 24)
    cam = SlidingWindowCAM(model, "encoder", roi_size=16, overlap=0.75, context=0)
    apart = difference(cam(image, 1), GradCAM(model, "encoder")(image, 1))
    assert apart.max() < 0.05
    assert apart.max() < 0.05
    assert apart.mean() < 0.01


@pytest.mark.parametrize("network", [Classifier, Segmenter])
def test_windows_that_show_too_little_are_warned_of(network):
    """By what cells see, 5 pixels, and what is shown; with as much context nothing is left to say."""
    model, image = network(2), image_of(2)
    with pytest.warns(CamWarning) as warned:
        stitched = SlidingWindowCAM(model, "encoder", base_method=HiResCAM, roi_size=8, batch_size=16)(image, 1)
    (message,) = [str(each.message) for each in warned]
    assert "sees 5 positions to each side, or more, and where two windows of 8 meet they show 2: context=6" in message
    said = float(re.search(r"by up to (\d+)%", message)[1]) / 100
    error = difference(stitched, HiResCAM(model, "encoder")(image, 1)).max()
    assert 0.25 * error < said < 1.5 * error
    with warnings.catch_warnings():
        warnings.simplefilter("error", CamWarning)
        SlidingWindowCAM(model, "encoder", base_method=HiResCAM, roi_size=8, context=6, batch_size=16)(image, 1)


class SeesAll(nn.Module):
    """Its normalisation is over the window."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.InstanceNorm2d(4), nn.ReLU())
        self.head = nn.Linear(4, 3)

    def forward(self, image):
        return self.head(self.encoder(image).mean((2, 3)))


def test_networks_that_look_at_all_of_a_window_are_warned_of():
    image = image_of(2) * torch.linspace(0.2, 1, 32)
    with pytest.warns(CamWarning, match="normalisation over the window") as warned:
        SlidingWindowCAM(SeesAll(), "encoder", roi_size=16, batch_size=9)(image, 1)
    assert len(warned) == 1  # not of more windows, which would say the same


def test_windows_have_one_scale():
    """The map of each window alone would have a 1 in it."""
    model, image = Classifier(2), image_of(2)
    image[:, :, 16:] *= 0.2
    stitched = SlidingWindowCAM(model, "encoder", roi_size=16, overlap=0.75)(image, 1)
    assert difference(stitched, GradCAM(model, "encoder")(image, 1)).max() < 0.05


def test_weights_of_the_whole_are_those_of_mean_gradients():
    """Away from what is predicted a window has no gradient; the whole image's weights say what looks alike there."""
    model, image = Segmenter(2), image_of(2)
    whole = GradCAM(model, "encoder", normalize=None, relu=False)(image, 1)
    stitched = SlidingWindowCAM(model, "encoder", roi_size=16, overlap=0.75, normalize=None, relu=False)(image, 1)
    stitched /= 4  # the mean over a window is over a quarter of the positions
    np.testing.assert_allclose(stitched, whole, rtol=0, atol=0.04 * np.abs(whole).max())
    assert "weigh" not in vars(GradCAM(model, "encoder"))


def test_one_window_is_the_base_method():
    model, image = Classifier(2), image_of(2)
    np.testing.assert_allclose(
        SlidingWindowCAM(model, "encoder")(image, 1), GradCAM(model, "encoder")(image, 1), atol=1e-6
    )


@pytest.mark.parametrize("options", [{"relu": False, "normalize": "max"}, {"normalize": None}, {"fuse": "product"}])
def test_scale_and_layers_as_asked(options):
    model, image = Classifier(2), image_of(2)
    layers = ["encoder.2", "encoder"]
    stitched = SlidingWindowCAM(model, layers, base_method=HiResCAM, roi_size=16, overlap=0.75, **options)(image, 1)
    whole = HiResCAM(model, layers, **options)(image, 1)
    scale = np.abs(whole).max() if options.get("normalize", "") is None else 1
    if scale == 1:
        assert np.abs(stitched - whole).max() < 0.05
    else:  # a mean of logits over fewer positions has larger gradients
        assert np.corrcoef(stitched.ravel(), whole.ravel())[0, 1] > 0.99


def test_layers_apart():
    model, image = Classifier(2), image_of(2)
    options = {"base_method": HiResCAM, "roi_size": 16}
    apart = SlidingWindowCAM(model, ["encoder.2", "encoder"], **options, fuse=None)(image, [[0, 1]])
    assert apart.shape == (1, 2, 2, 32, 32)
    np.testing.assert_allclose(
        apart[:, :, 1], SlidingWindowCAM(model, "encoder", **options)(image, [[0, 1]]), atol=1e-6
    )


def test_several_targets_and_images():
    model = Classifier(2)
    images = torch.cat([image_of(2), image_of(2).flip(3)])
    cam = SlidingWindowCAM(model, "encoder", roi_size=16)
    maps = cam(images, [[0, 1], [2, 1]])
    assert maps.shape == (2, 2, 32, 32)
    np.testing.assert_allclose(maps[1, 0], cam(images[1:], 2)[0], atol=1e-6)
    np.testing.assert_allclose(maps[:, 1], cam(images, 1), atol=1e-6)
    assert cam(images, [0, 2], as_tensor=True).dtype == torch.float32


def test_without_a_target_the_class_is_that_of_all_windows():
    """The windows' own highest classes differ."""
    torch.manual_seed(3)
    model, image = Classifier(2), image_of(2)
    with torch.no_grad():
        model.head.weight.mul_(4)
        bias = model.head.bias - model(image)[0]
        model.head.bias.copy_(bias + torch.tensor([0.0, 0.02, 0.0]))
    cam = SlidingWindowCAM(model, "encoder", roi_size=16)
    assert len({model(image[..., at : at + 16, :16]).argmax().item() for at in (0, 8, 16)}) > 1
    found = cam(image)
    highest = int(cam.outputs.argmax())
    np.testing.assert_array_equal(found, cam(image, highest))
    assert cam.outputs.shape == (1, 3)


def test_a_mask_is_that_of_the_whole_image():
    model, image = Segmenter(2), image_of(2)
    mask = torch.zeros(32, 32)
    mask[19:27, 19:27] = 1
    target = SemanticSegmentationTarget(1, mask)
    whole = HiResCAM(model, "encoder")(image, target)
    stitched = SlidingWindowCAM(model, "encoder", base_method=HiResCAM, roi_size=16)(image, target)
    assert difference(stitched, whole).max() < 0.05
    with pytest.raises(ValueError, match=r"the mask has shape \(8, 8\), expected that of the image, \(32, 32\)"):
        SlidingWindowCAM(model, "encoder", roi_size=16)(image, SemanticSegmentationTarget(1, mask[:8, :8]))


def test_regions_of_a_segmentation():
    model, image = Segmenter(2), image_of(2)
    mask = torch.zeros(32, 32)
    mask[19:27, 19:27] = 1
    cam = SlidingWindowCAM(model, "encoder", base_method=HiResCAM, roi_size=16)
    in_mask = cam(image, SegmentationTarget(1, mask))
    np.testing.assert_array_equal(in_mask, cam(image, SemanticSegmentationTarget(1, mask)))
    np.testing.assert_array_equal(cam(image, SegmentationTarget(1)), cam(image, 1))


class BrighterThanItsWindow(Segmenter):
    """What is brighter than the mean of what is shown is class 1, so that windows of one image predict other pixels."""

    def __init__(self, reduced, classes):
        super().__init__(2)
        self.reduced, self.classes = reduced, classes

    def forward(self, image):
        scores = super().forward(image - image.mean((2, 3), keepdim=True) + 0.8)[:, 2 - self.classes :]
        return nn.functional.avg_pool2d(scores, self.reduced)


@pytest.mark.parametrize(("reduced", "classes"), [(1, 2), (4, 2), (1, 1)])
def test_what_is_predicted_is_so_of_the_whole_image(reduced, classes):
    """By MONAI's mean of the windows' scores, also of logits of a quarter of the size and of one class alone."""
    model, image = BrighterThanItsWindow(reduced, classes), image_of(2) * torch.linspace(0.5, 1, 32)
    scores, counts = torch.zeros(classes, 32, 32), torch.zeros(32, 32)
    gaussian = torch.exp(-((torch.arange(16) - 7.5) ** 2) / 8)
    weights = gaussian.clamp(min=1e-3)[:, None] * gaussian.clamp(min=1e-3)
    for y in (0, 8, 16):
        for x in (0, 8, 16):
            where = (Ellipsis, slice(y, y + 16), slice(x, x + 16))
            of_window = model(image[where]).detach()
            enlarged = nn.functional.interpolate(of_window, size=(16, 16), mode="bilinear")
            scores[where] += enlarged[0] * weights
            counts[where] += weights
    scores /= counts
    predicted = scores.argmax(0) == 1 if classes == 2 else scores[0] > 0
    cam = SlidingWindowCAM(model, "encoder", base_method=HiResCAM, roi_size=16, context=0)
    of_class = classes - 1
    heat = cam(image, SegmentationTarget(of_class, mask="predicted"))
    np.testing.assert_array_equal(heat, cam(image, SegmentationTarget(of_class, mask=predicted)))
    assert np.abs(heat - cam(image, of_class)).max() > 0.05


def test_a_point_and_an_object_of_the_image():
    """Each of both bright parts is an object of its own, the larger one first."""
    model, image = Segmenter(2), image_of(2)
    signed = {"relu": False, "normalize": "max"}
    cam = SlidingWindowCAM(model, "encoder", base_method=HiResCAM, roi_size=20, **signed)
    targets = [
        SegmentationTarget(point=(8, 9)),
        SegmentationTarget(1, instance=0),
        SegmentationTarget(1, instance=1),
        SegmentationTarget(mask="predicted", point=(23, 22)),
    ]
    point, first, second, at_second = cam(image, [targets])[0]
    alone = torch.zeros(32, 32)
    alone[8, 9] = 1
    np.testing.assert_array_equal(point, cam(image, SegmentationTarget(1, mask=alone))[0])
    assert np.abs(first[:16, :16]).sum() > 0.99 * np.abs(first).sum() > 0
    assert np.abs(second[16:, 16:]).sum() > 0.99 * np.abs(second).sum() > 0
    np.testing.assert_array_equal(at_second, second)
    whole = HiResCAM(model, "encoder", **signed)(image, SegmentationTarget(1, instance=1))[0]
    np.testing.assert_allclose(second, whole, atol=1e-5)


def test_regions_that_are_not_there():
    image = image_of(2)
    with pytest.raises(ValueError, match="class 1 is predicted nowhere"):
        SlidingWindowCAM(Segmenter(2), "encoder", roi_size=16)(0.2 * image, SegmentationTarget(1, mask="predicted"))
    with pytest.raises(
        ValueError, match=r"needs an output \(N, classes, \*spatial\), for windows this one is \(1, 3\)"
    ):
        SlidingWindowCAM(Classifier(2), "encoder", roi_size=16)(image, SegmentationTarget(1, point=(3, 3)))
    with pytest.raises(ValueError, match="the output has 2 classes: say which one"):
        SlidingWindowCAM(Segmenter(2), "encoder", roi_size=16)(image, SegmentationTarget())
    cam = SlidingWindowCAM(Segmenter(2), "encoder", roi_size=16)
    with pytest.raises(ValueError, match="a box or a region is asked for"):
        cam(image, SegmentationTarget(1, mask=image[0, 0] > 1), aug_smooth=True)


def test_the_layer_is_found_in_a_window_with_the_class():
    """The first windows have no pixel of class 1, so no gradient."""
    model, image = Segmenter(2), 0.3 * torch.rand(1, 1, 48, 48, generator=torch.Generator().manual_seed(1))
    image[:, :, 38:44, 38:44] += 1
    cam = SlidingWindowCAM(model, roi_size=16)
    heat = cam(image, 1)[0]
    assert cam.location.name == "enlarge"
    assert heat[36:46, 36:46].mean() > heat[:24, :24].mean()


def test_a_class_that_no_window_predicts_is_blank_and_warned_of():
    model = Segmenter(2)
    with pytest.warns(CamWarning, match="no window predicts the class"):
        assert not SlidingWindowCAM(model, "encoder", roi_size=16)(0.2 * image_of(2), 1).any()


@pytest.mark.parametrize("size", [(40, 37), (12, 40), (12, 9)])
def test_any_size(size):
    """The last windows end at the border; an image that is smaller than the window is padded."""
    model, image = Classifier(2), image_of(2, 64)[..., : size[0], : size[1]]
    maps = SlidingWindowCAM(model, "encoder", roi_size=16)(image, 1)
    assert maps.shape == (1, *size)
    assert (maps.min(), maps.max()) == (0, 1)


def test_a_file_is_read_window_by_window(tmp_path):
    model, image = Classifier(2), image_of(2)
    array = np.memmap(tmp_path / "volume.dat", np.int16, "w+", shape=(32, 32))
    array[:] = (100 * image[0, 0].numpy()).astype(np.int16)
    sizes = []

    class File:
        shape = (1, 1, 32, 32)

        def __getitem__(self, where):
            part = array[None, None][where]
            sizes.append(part.size)
            return part

    cam = SlidingWindowCAM(nn.Sequential(Scaled(), model), "1.encoder", roi_size=16)
    expected = cam(torch.from_numpy(array.astype(np.float32))[None, None], 1)
    np.testing.assert_array_equal(cam(File(), 1), expected)
    np.testing.assert_array_equal(cam(array[None, None], 1), expected)
    assert max(sizes) == 16 * 16


class Scaled(nn.Module):
    def forward(self, image):
        return image / 100


class OfClips(nn.Module):
    """Takes clips (N, T, C, H, W)."""

    def __init__(self):
        super().__init__()
        self.network = Classifier(3)

    def forward(self, clip):
        assert clip.shape[1] == 8, "the model takes 8 frames"
        return self.network(clip.transpose(1, 2))


def test_clips_longer_than_the_models():
    clip = image_of(3, 16).transpose(1, 2)
    clip = torch.cat([clip, clip.flip(1)], dim=1)
    cam = SlidingWindowCAM(OfClips(), "network.encoder", roi_size=(8, -1, -1), axes="NTCHW")
    heat = cam(clip, 1)
    assert heat.shape == (1, 32, 16, 16)
    np.testing.assert_allclose(cam(clip.numpy(), 1), heat, atol=1e-6)
    with pytest.raises(AssertionError, match="the model takes 8 frames"):
        SlidingWindowCAM(OfClips(), "network.encoder", roi_size=(8, -1, -1))(clip, 1)


def test_an_output_of_signals_is_refused_as_by_the_base_method():
    with pytest.raises(ValueError, match="for signals can be"):
        SlidingWindowCAM(Segmenter(1), "encoder", roi_size=16)(image_of(1), 1)


def test_channels_elsewhere_have_to_be_named():
    class OfAnyClip(OfClips):
        def forward(self, clip):
            return self.network(clip.transpose(1, 2))

    with pytest.raises(ValueError, match=r"axes='NTCHW'"):
        SlidingWindowCAM(OfAnyClip(), "network.encoder", roi_size=(1, 8, 8))(image_of(3, 16).transpose(1, 2), 1)


def test_other_inputs_go_along():
    class WithAge(Classifier):
        def forward(self, image, age):
            return super().forward(image) * age[:, None]

    model, image = WithAge(2), image_of(2)
    images, ages = torch.cat([image, image.flip(2)]), torch.tensor([1.0, -1.0])
    cam = SlidingWindowCAM(model, "encoder", roi_size=16, batch_size=2)
    maps = cam((images, ages), 1)
    np.testing.assert_allclose(maps[1], cam((images[1:], ages[1:]), 1)[0], atol=1e-6)
    assert np.abs(maps[1][::-1] - maps[0]).max() > 0.1


def test_only_windows_are_run():
    FORWARDS.clear()
    options = {"base_method": HiResCAM, "roi_size": 16, "batch_size": 2, "check_place": False, "context": 0}
    SlidingWindowCAM(Classifier(2), "encoder", **options)(image_of(2), 1)
    assert {shape[2:] for shape in FORWARDS} == {(16, 16)}
    assert (
        sum(shape[0] for shape in FORWARDS) <= 9 + 5
    )  # what the output is, whether the layer is rectified, what a cell sees


def test_methods_without_targets_need_none():
    maps = SlidingWindowCAM(Segmenter(2), "encoder", base_method=EigenCAM, roi_size=16)(image_of(2))
    assert (maps.shape, maps.max()) == ((1, 32, 32), 1)


def test_in_an_explanation():
    found = explain(Classifier(3), image_of(3), SlidingWindowCAM, targets=[0, 1], roi_size=(16, -1, -1))
    expected = SlidingWindowCAM(Classifier(3), "encoder", roi_size=(16, -1, -1))(image_of(3), [[0, 1]])[0]
    np.testing.assert_allclose(found["encoder"].maps, expected, atol=0.02)  # registered there


def test_around_a_meta_method():
    maps = SlidingWindowCAM(Classifier(2), "encoder", base_method=FinerCAM, roi_size=16)(image_of(2), 1)
    assert (maps.shape, maps.max()) == ((1, 32, 32), 1)


def test_stitched_maps_have_no_graph():
    with pytest.raises(ValueError, match="leave out detach=False"):
        SlidingWindowCAM(Classifier(2), "encoder", roi_size=16, detach=False)


def test_a_monai_inferer_is_accepted():
    inferers = pytest.importorskip("monai.inferers")
    inferer = inferers.SlidingWindowInferer((16, 16), 4, 0.5, "gaussian")
    model, image = Classifier(2), image_of(2)
    cam = SlidingWindowCAM(model, "encoder", inferer=inferer)
    assert cam.batch_size == 4
    np.testing.assert_allclose(cam(image, 1), SlidingWindowCAM(model, "encoder", roi_size=16)(image, 1), atol=1e-6)


@pytest.mark.parametrize(
    "options", [{"cval": 0.3}, {"mode": "gaussian", "sigma_scale": 0.25}, {"padding_mode": "reflect"}]
)
def test_segmentations_are_stitched_as_monai_does(options):
    """The same windows with the same weights: the network's own output instead of its map."""
    inferers = pytest.importorskip("monai.inferers")
    inferer = inferers.SlidingWindowInferer((12, 16), 2, (0.25, 0.5), **options)
    windows, image = Windows.of(inferer), image_of(2, 32)[..., :10, :]
    model, inputs = Segmenter(2).eval(), WindowedInputs(image, None, windows)
    stitching = Stitching(windows, inputs.image_size)
    with torch.no_grad():
        for where in windows.on(inputs.image_size):
            stitching.add(model(inputs.of(0, [where])), [where])
        np.testing.assert_allclose(stitching.finish()[0], inferer(image, model)[0], atol=2e-3)
