"""The layer is looked for from the score that is asked for: detectors, segmentations, branches; one rule a test."""

import inspect
import warnings

import literal
import numpy as np
import pytest
import torch
from detectors import (
    BOXES,
    SIZE,
    Detector,
    FullyConvolutional,
    HighestOfLevels,
    MaskQueries,
    Pooling,
    PyramidPooling,
    SingleShot,
    TwoBranches,
    UNet,
)
from nets import Residual, convolutional, images
from torch import nn

from pytorch_grad_cam import EigenCAM, GradCAM, HiResCAM, LayerCAM, ScoreCAM, XGradCAM
from pytorch_grad_cam.engine.cam_warning import CamWarning
from pytorch_grad_cam.locate import locate, suggest_layers


def picture(count=1, seed=1):
    return torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


def box(number):
    return lambda output: output[number, 2]


def all_boxes(output):
    return output[:, 2].sum()


@pytest.fixture(scope="module")
def detector():
    return Detector().eval()


@pytest.fixture(scope="module")
def unet():
    return UNet().eval()


# Classes


def test_a_class_without_a_trained_output_has_the_layer_of_the_others():
    class Calibrated(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = convolutional()

        def forward(self, x):
            trained = torch.tensor([True, True, False, True, True])
            return torch.where(trained, self.net(x).sigmoid(), torch.full((), 0.5))

    cam = GradCAM(Calibrated())
    with pytest.warns(CamWarning, match="2 of 2 maps are blank: zero gradient"):
        assert cam(images(), 2).max() == 0
    assert cam.location.name == "net.last"


def test_a_network_whose_highest_number_is_constant_has_a_layer_for_the_class_asked_for():
    """The search of 2.0 before followed the highest number, 0.9, which nothing leads to."""

    class Calibrated(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = convolutional()

        def forward(self, x):
            return torch.where(torch.tensor([False, True, True, True, True]), self.net(x).sigmoid() * 0.5, 0.9)

    assert GradCAM(Calibrated())(images(), 3).max() == 1
    assert locate(Calibrated(), images(), targets=3).name == "net.last"


@pytest.mark.parametrize(("number", "name"), [(0, "coarse"), (2, "coarse"), (3, "fine"), (4, "fine")])
def test_a_class_has_the_layer_of_the_branch_that_it_reads(number, name):
    model = TwoBranches().eval()
    cam, x = GradCAM(model), picture()
    maps = cam(x, number)
    assert cam.location.name == name
    expected = literal.grad_cam(model, getattr(model, name), x, lambda output: output[0, number], SIZE)
    np.testing.assert_allclose(maps, expected, atol=1e-6)


def test_a_class_of_another_branch_is_found_by_the_same_object():
    cam, x = GradCAM(TwoBranches().eval()), picture()
    names = []
    for number in (0, 3, 1):
        maps = cam(x, number)
        names.append(cam.location.name)
        np.testing.assert_array_equal(maps, GradCAM(TwoBranches().eval())(x, number))
    assert names == ["coarse", "fine", "coarse"]


def test_classes_of_two_branches_in_one_call_have_the_layers_of_both():
    cam, x = GradCAM(TwoBranches().eval()), picture(2)
    maps = cam(x, [0, 3])
    assert {cam.location.name, *(other.name for other in cam.location.others)} == {"coarse", "fine"}
    for sample, number in enumerate([0, 3]):
        np.testing.assert_allclose(
            maps[sample], GradCAM(TwoBranches().eval())(x[sample : sample + 1], number)[0], atol=1e-5
        )


def test_two_targets_whose_sum_is_constant_have_the_layer_of_each():
    class Opposites(TwoBranches):
        def forward(self, x):
            scores = super().forward(x)
            return torch.cat([scores[:, :1], scores[:, 3:4], -scores[:, 3:4]], dim=1)

    cam = GradCAM(Opposites().eval())
    cam(picture(), [[1, 2]])
    assert cam.location.name == "fine"


# Several levels


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_box_has_the_layer_of_its_level(detector, level):
    x, number = picture(), BOXES[level]
    cam = GradCAM(detector)
    maps = cam(x, box(number))
    assert cam.location.name == f"necks.{level}"
    assert not cam.location.others
    expected = literal.grad_cam(detector, detector.necks[level], x, lambda output: output[0, number, 2], SIZE)
    assert expected.max() == 1
    np.testing.assert_allclose(maps, expected, atol=1e-6)


@pytest.mark.parametrize("levels", [(0, 1, 2), (2, 1, 0), (1, 1, 2), (2, 0, 2)])
def test_a_box_of_another_level_is_found_by_the_same_object(detector, levels):
    cam, x = GradCAM(detector), picture()
    for level in levels:
        maps = cam(x, box(BOXES[level]))
        assert cam.location.name == f"necks.{level}"
        np.testing.assert_array_equal(maps, GradCAM(detector)(x, box(BOXES[level])))


def test_a_box_of_another_level_is_found_where_levels_are_made_of_one_another():
    model, x = SingleShot().eval(), picture()
    cam = GradCAM(model)
    for level in (0, 1, 2):
        maps = cam(x, box(BOXES[level]))
        np.testing.assert_array_equal(maps, GradCAM(model)(x, box(BOXES[level])))


def test_a_score_of_all_boxes_has_the_layers_of_all_levels(detector):
    cam, x = GradCAM(detector), picture()
    maps = cam(x, all_boxes)
    assert [cam.location.name, *(other.name for other in cam.location.others)] == ["necks.0", "necks.1", "necks.2"]
    assert cam.target_layers == list(detector.necks)
    assert "; and necks.1 (Sequential)" in str(cam.location)
    expected = literal.joined_grad_cam(detector, list(detector.necks), x, lambda output: output[0, :, 2].sum(), SIZE)
    np.testing.assert_allclose(maps, expected, atol=1e-6)


def test_a_score_of_two_levels_has_these_two(detector):
    cam = GradCAM(detector)
    cam(picture(), lambda output: output[[BOXES[0], BOXES[2]], 2].sum())
    assert [cam.location.name, *(other.name for other in cam.location.others)] == ["necks.0", "necks.2"]


def test_levels_joined_by_hand_are_a_mean_as_ever(detector):
    """The maximum is for levels that were found."""
    x = picture()
    maps = GradCAM(detector, list(detector.necks))(x, all_boxes)
    each = [literal.enlarged(detector, neck, x, lambda output: output[0, :, 2].sum(), SIZE) for neck in detector.necks]
    np.testing.assert_allclose(maps, literal.scaled(torch.stack(each).mean(0)).numpy(), atol=1e-6)


def test_boxes_of_several_levels_for_one_image_each_have_the_map_of_their_own(detector):
    cam, x = GradCAM(detector), picture()
    maps = cam(x, [[box(number) for number in BOXES]])
    assert maps.shape == (1, 3, *SIZE)
    for level, number in enumerate(BOXES):
        np.testing.assert_allclose(maps[:, level], GradCAM(detector)(x, box(number)), atol=1e-5)


def test_boxes_of_several_levels_for_one_image_where_levels_are_made_of_one_another():
    model, x = SingleShot().eval(), picture()
    maps = GradCAM(model)(x, [[box(BOXES[0]), box(BOXES[2])]])
    for position, level in enumerate((0, 2)):
        expected = literal.grad_cam(model, model.stages[level], x, lambda output: output[0, BOXES[level], 2], SIZE)  # noqa: B023
        np.testing.assert_allclose(maps[:, position], expected, atol=1e-5)


@pytest.mark.parametrize("levels", [(0, 2), (2, 0), (0, 0, 1), (1, 2, 0)])
def test_images_of_a_batch_may_have_boxes_on_levels_made_of_one_another(levels):
    model, x = SingleShot().eval(), picture(len(levels))
    maps = GradCAM(model)(x, [box(BOXES[level]) for level in levels])
    for sample, level in enumerate(levels):
        alone = GradCAM(model)(x[sample : sample + 1], box(BOXES[level]))
        np.testing.assert_allclose(maps[sample], alone[0], atol=1e-5)


def test_images_of_a_batch_may_have_boxes_on_different_levels(detector):
    x = picture(2)
    maps = GradCAM(detector)(x, [box(BOXES[0]), box(BOXES[2])])
    for sample, level in enumerate((0, 2)):
        alone = GradCAM(detector)(x[sample : sample + 1], box(BOXES[level]))
        np.testing.assert_allclose(maps[sample], alone[0], atol=1e-5)


def test_the_third_image_of_a_batch_may_have_its_box_on_another_level(detector):
    x = picture(3)
    maps = GradCAM(detector)(x, [box(BOXES[0]), box(BOXES[0]), box(BOXES[1])])
    np.testing.assert_allclose(maps[2], GradCAM(detector)(x[2:], box(BOXES[1]))[0], atol=1e-5)


def test_a_level_that_one_image_lacks_is_found_after_the_first_call(detector):
    x, cam = picture(2), GradCAM(detector)
    cam(x[:1], box(BOXES[0]))
    maps = cam(x, [box(BOXES[0]), box(BOXES[2])])
    np.testing.assert_allclose(maps, GradCAM(detector)(x, [box(BOXES[0]), box(BOXES[2])]), atol=1e-5)


@pytest.mark.parametrize("other", [1, 2])
def test_the_layer_of_a_box_does_not_depend_on_how_many_are_asked_for(other):
    """Of its level one cell is read, of the layer before 3 x 3. The other level is made of the first, and reads all."""
    detector, x = Detector().eval(), picture()
    detector.necks[0] = nn.Sequential(*(nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU()) for _ in range(2)))
    detector.heads[0] = nn.Conv2d(8, 5, 1)
    alone, together = GradCAM(detector), GradCAM(detector)
    alone(x, box(BOXES[0]))
    assert alone.location.layer is detector.stem
    together(x, [[box(BOXES[0]), box(BOXES[other])]])
    assert alone.location.layer in together.location.layers


@pytest.mark.parametrize("number", [0, 15, 16 * 16 - 1, 256, 256 + 64 + 15])
def test_a_box_at_the_edge_has_the_layer_of_its_level(detector, number):
    """Of which it reads 2 x 2 cells: the edge cuts off the others."""
    cam = GradCAM(detector)
    cam(picture(), box(number))
    assert cam.location.name == f"necks.{0 if number < 256 else 1 if number < 256 + 64 else 2}"


@pytest.mark.parametrize(
    ("how", "broad"), [("amax", True), ("max", True), ("topk", True), ("levels", True), ("amax", False)]
)
def test_a_class_that_is_the_highest_of_all_places_has_the_layer_of_its_level(how, broad):
    """As of NanoDet where it serves as a classifier: its branches begin early, and one place reads few cells."""
    model, x = HighestOfLevels(how, broad).eval(), picture()
    cam, names = GradCAM(model), set()
    for number in range(5):
        maps = cam(x, number)
        names.add(cam.location.name)
        assert cam.location.name == f"towers.{model.level_of(x, number)}" + ".2" * broad
        expected = literal.grad_cam(model, cam.location.layer, x, lambda output: output[0, number], SIZE)  # noqa: B023
        np.testing.assert_allclose(maps, expected, atol=1e-5)
    assert len(names) > 1


class PositionsBetweenBlocks(nn.Module):
    """Patches of 4 x 4 pixels behind a class token; positions are added in front of the last block, as in Yolos."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patch, self.first = nn.Conv2d(3, 8, 4, 4), Residual(8)
        self.extra, self.positions = (nn.Parameter(torch.randn(1, count, 8)) for count in (1, 1 + 8 * 8))
        self.norm, self.attention = nn.LayerNorm(8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        tokens = torch.cat([self.extra.expand(len(x), 1, 8), self.patch(x).flatten(2).mT], 1)
        tokens = self.first(tokens) + self.positions
        normed = self.norm(tokens)
        return self.head((tokens + self.attention(normed, normed, normed, need_weights=False)[0])[:, 0])


def test_positions_that_are_added_do_not_hide_the_norm_before_the_last_attention():
    model, x = PositionsBetweenBlocks().eval(), torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert locate(model, x).layer is model.norm


def text_reader():
    """Of lines of 16 pixels' height, as PP-OCR's readers: the last stage has a row of cells."""
    torch.manual_seed(0)
    stages = (
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(8, 8, (4, 3), 1, (0, 1)),
        nn.ReLU(),
    )
    return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()


def test_a_row_of_cells_along_a_line_of_text_is_a_map():
    model, x = text_reader(), torch.randn(1, 3, 16, 96, generator=torch.Generator().manual_seed(0))
    location = locate(model, x)
    assert location.layer is model[5]
    assert location.layout.grid == (1, 24)


def test_a_row_of_cells_across_a_picture_is_none():
    """It says nothing of the other axis."""
    model, x = text_reader(), torch.randn(1, 3, 16, 32, generator=torch.Generator().manual_seed(0))
    assert locate(model, x).layout.grid == (4, 8)


class Reader(nn.Module):
    """A CRNN: a row of cells along a line of text, a recurrent layer over them, scores of each (N, time, classes)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        layers = (
            nn.Conv2d(3, 8, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, (2, 1), 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d((1, 20)),
        )
        self.stem, self.row = nn.Sequential(*layers[:2]), nn.Sequential(*layers[2:])
        self.recurrent, self.head = nn.LSTM(8, 8, bidirectional=True, batch_first=True), nn.Linear(16, 5)

    def forward(self, x):
        return self.head(self.recurrent(self.row(self.stem(x)).squeeze(2).transpose(1, 2))[0])


@pytest.mark.parametrize("targets", [3, lambda scores: scores[7, 3]])
@pytest.mark.parametrize("samples", [1, 2])
def test_a_reader_of_text_has_one_map_for_all_its_times(targets, samples):
    x = torch.randn(samples, 3, 16, 80, generator=torch.Generator().manual_seed(0))
    model = Reader().eval()
    cam = GradCAM(model, relu=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = cam(x, [targets] * samples if callable(targets) else targets)
    assert drawn.shape == (samples, 16, 80)
    assert cam.location.layers == [model.row]
    assert cam.location.layout.grid == (1, 20)


@pytest.mark.parametrize("time", [2, 10, 17])
def test_the_map_of_a_time_lies_where_its_character_does(time):
    """Without the recurrent layer each time reads its own cell."""
    model = Reader().eval()
    model.recurrent = nn.Identity()
    model.recurrent.forward = lambda x: (torch.cat([x, x], 2),)
    x = torch.randn(1, 3, 16, 80, generator=torch.Generator().manual_seed(0))
    drawn = HiResCAM(model, "row", relu=False, normalize=None)(x, [lambda scores: scores[time, 3]])[0]
    assert abs(drawn).sum(0).argmax() // 4 == time


class Autoencoder(nn.Module):
    """Decodes the image from a vector, or from the encoder's map."""

    def __init__(self, through_vector):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())
        vector = nn.Flatten(), nn.Linear(8 * 8 * 8, 16), nn.Linear(16, 8 * 8 * 8), nn.Unflatten(1, (8, 8, 8))
        self.code = nn.Sequential(*vector) if through_vector else nn.Identity()
        self.decoder = nn.Sequential(nn.ConvTranspose2d(8, 8, 2, 2), nn.ReLU(), nn.ConvTranspose2d(8, 3, 2, 2))

    def forward(self, x):
        return self.decoder(self.code(self.encoder(x)))


@pytest.mark.parametrize(("through_vector", "name"), [(True, "encoder"), (False, "decoder.1")])
def test_what_is_decoded_from_a_vector_is_explained_in_front_of_it(through_vector, name):
    """The decoder's cells look at all of the image: a change of one part is a change of all of them."""
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    errors = [lambda output, image=image: (output - image).square().mean() for image in x]
    for targets in (0, errors):
        cam = GradCAM(Autoencoder(through_vector).eval(), relu=False)
        with warnings.catch_warnings():
            warnings.simplefilter("error", CamWarning)
            cam(x, targets)
        assert cam.location.name == name


class Members(nn.Module):
    """An ensemble: the mean of the scores of members, or of one that looks at the others' features."""

    def __init__(self, members):
        super().__init__()
        torch.manual_seed(0)
        self.members = nn.ModuleList(nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU()) for _ in range(members))
        self.head = nn.Linear(8 * members, 5)

    def forward(self, x):
        return self.head(torch.cat([member(x).mean((2, 3)) for member in self.members], 1))


def test_what_another_member_says_is_announced():
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    both = r"beside it on members\.0, .* target_layers=\['members\.1', 'members\.0'\]"
    with pytest.warns(CamWarning, match=both):
        GradCAM(Members(2).eval())(x, 1)
    with pytest.warns(
        CamWarning, match=r"beside it on members\.1, members\.0, .*=\['members\.2', 'members\.1', 'members"
    ):
        GradCAM(Members(3).eval())(x, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", CamWarning)
        GradCAM(Members(2).eval(), ["members.1", "members.0"])(x, 1)
        GradCAM(Members(1).eval())(x, 1)
        twice = Members(2)
        twice.members[1] = twice.members[0]
        GradCAM(twice.eval())(x, 1)


class HighestPlaces(nn.Module):
    """Convolutions whose classes' scores are the highest of all places."""

    def __init__(self, *convolutions: nn.Module) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(*convolutions)

    def forward(self, x):
        return self.convolutions(x).amax((2, 3))


def test_places_that_a_single_convolution_scores_are_their_own_map():
    """Nothing is learned behind them, and one cell is read: there is no other map."""
    torch.manual_seed(0)
    model, x = HighestPlaces(nn.Conv2d(3, 5, 3, padding=1)).eval(), picture()
    maps = GradCAM(model)(x, 2)
    evidence = model.convolutions(x)[:, 2].relu().detach()
    np.testing.assert_allclose(maps, (evidence - evidence.min()) / (evidence.max() - evidence.min()), atol=1e-5)


@pytest.mark.parametrize("number", range(5))
def test_images_of_a_batch_may_have_the_highest_place_of_a_class_elsewhere(number):
    model, x = HighestOfLevels("amax").eval(), picture(4) * torch.tensor([0.05, 1, 6, 30])[:, None, None, None]
    cam = GradCAM(model)
    maps = cam(x, number)
    assert len(cam.location.layers) == len({model.level_of(image[None], number) for image in x})
    for sample, image in enumerate(x):
        np.testing.assert_allclose(maps[sample], GradCAM(model)(image[None], number)[0], atol=1e-5)


@pytest.mark.parametrize("how", ["index_put", "index", "slice"])
@pytest.mark.parametrize("number", [0, 1, 4, 5])
def test_a_box_whose_sight_was_put_into_a_table_has_the_layer_of_its_level(how, number):
    model, x = Pooling(how).eval(), picture()
    cam = GradCAM(model)
    maps = cam(x, box(number))
    assert cam.location.name == f"necks.{number % 2}"
    expected = literal.grad_cam(model, model.necks[number % 2], x, lambda output: output[0, number, 2], SIZE)
    np.testing.assert_allclose(maps, expected, atol=1e-6)


@pytest.mark.parametrize("how", ["index_put", "index", "slice"])
def test_all_boxes_of_a_table_have_the_layers_of_both_levels(how):
    model, x = Pooling(how).eval(), picture()
    cam = GradCAM(model)
    maps = cam(x, all_boxes)
    assert {each.name for each in (cam.location, *cam.location.others)} == {"necks.0", "necks.1"}
    expected = literal.joined_grad_cam(model, list(model.necks), x, lambda output: output[0, :, 2].sum(), SIZE)
    np.testing.assert_allclose(maps, expected, atol=1e-6)


def test_a_table_of_few_boxes_is_no_segmentation():
    """Scores (N, 4, 4) have the proportions of the image, and are no map of it."""

    class FewBoxes(Pooling):
        def forward(self, x):
            return super().forward(x)[:, :4]

    cam = GradCAM(FewBoxes("index_put").eval())
    cam(picture(), all_boxes)
    assert {each.name for each in (cam.location, *cam.location.others)} == {"necks.0", "necks.1"}


@pytest.mark.parametrize("cam_class", [LayerCAM, XGradCAM, ScoreCAM])
def test_other_methods_have_the_levels_too(detector, cam_class):
    cam, x = cam_class(detector), picture()
    assert cam(x, all_boxes).max() == 1
    assert cam.target_layers == list(detector.necks)


def test_a_method_that_knows_no_target_has_the_layer_of_the_highest_number(detector):
    cam, x = EigenCAM(detector), picture()
    highest = int(detector(x).flatten(1).argmax() // 5)
    cam(x)
    assert cam.location.name == f"necks.{int(highest >= 256) + int(highest >= 320)}"


# Outputs that are maps


TARGETS = {
    "mean": lambda output: output[2].mean(),
    "pixel": lambda output: output[1, 20, 30],
    "region": lambda output: output[1, 4:12, 4:20].sum(),
    "predicted": lambda output: (output[1] * (output.argmax(0) == 1)).sum(),
}


@pytest.mark.parametrize("kind", TARGETS)
def test_a_segmentation_is_explained_at_the_first_level_of_its_decoder(unet, kind):
    cam, x = GradCAM(unet), picture()[..., :48, :]
    maps = cam(x, TARGETS[kind])
    assert cam.location.name == "up2"
    assert cam.location.why == "the decoder's first level, which all goes through that the encoder's last map says"
    expected = literal.grad_cam(unet, unet.up2, x, lambda output: TARGETS[kind](output[0]), (48, 64))
    np.testing.assert_allclose(maps, expected, atol=1e-6)


def test_a_segmentation_is_explained_at_one_layer_wherever_the_pixel_lies(unet):
    x = picture()[..., :48, :]
    pixels = [(0, 0), (0, 30), (23, 0), (23, 31), (47, 63), (20, 30), (13, 21)]
    names = {pixel: locate(unet, x, targets=lambda o, pixel=pixel: o[1, pixel[0], pixel[1]]).name for pixel in pixels}
    assert set(names.values()) == {"up2"}


def test_a_step_up_that_not_all_goes_through_is_no_level_of_the_decoder():
    """The bottleneck says something to the output on another way, too."""

    class Beside(UNet):
        def __init__(self):
            super().__init__()
            self.beside = nn.Conv2d(12, 4, 1)

        def forward(self, x):
            kept = []
            with self.bottleneck.register_forward_hook(lambda module, inputs, output: kept.append(output)):
                logits = super().forward(x)
            return logits + nn.functional.interpolate(self.beside(kept[0]), size=logits.shape[2:])

    location = locate(Beside().eval(), picture(), targets=TARGETS["mean"])
    assert location.name == "bottleneck"
    assert location.why == "the last map of the coarsest grid, behind the encoder"


def test_a_pyramid_of_pooled_maps_is_not_the_coarsest_map():
    model = PyramidPooling().eval()
    for kind in ("mean", "pixel"):
        location = locate(model, picture(), targets=TARGETS[kind])
        assert (location.name, location.layout.grid) == ("fuse", (16, 16))


@pytest.mark.parametrize("kind", TARGETS)
def test_what_one_attention_of_the_queries_reads_is_not_the_map_behind_the_encoder(kind):
    """The values of the last attention are the last map of the coarsest grid, and few paths lead through them."""
    assert locate(MaskQueries().eval(), picture(), targets=TARGETS[kind]).name in ("coarse", "projection")


def test_a_fully_convolutional_network_is_explained_at_its_last_stage():
    model = FullyConvolutional().eval()
    for target in (TARGETS["mean"], TARGETS["region"]):
        cam, x = GradCAM(model), picture()
        maps = cam(x, target)
        assert cam.location.layer in (model.late, model.classifier[0])
        expected = literal.grad_cam(model, cam.location.layer, x, lambda o: target(o["out"][0]), SIZE)  # noqa: B023
        np.testing.assert_allclose(maps, expected, atol=1e-6)


def test_an_auxiliary_head_has_a_layer_of_its_own():
    model = FullyConvolutional().eval()
    location = locate(model, picture(), output_transform=lambda o: o["aux"], targets=TARGETS["mean"])
    assert location.layout.grid == (32, 32)
    assert location.name in ("early", "auxiliary.0")


# What is public


def test_locate_and_suggest_layers_take_targets(detector):
    x = picture()
    for level, number in enumerate(BOXES):
        assert locate(detector, x, targets=box(number)).name == f"necks.{level}"
        suggested = suggest_layers(detector, x, targets=box(number))
        assert suggested[0].name == f"necks.{level}"
        assert "stem" in [each.name for each in suggested]
    for function in (locate, suggest_layers):
        assert inspect.signature(function).parameters["targets"].default is None


# Tokens and embeddings


class Causal(nn.Module):
    """A token sees those in front of it."""

    def __init__(self):
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(12), nn.MultiheadAttention(12, 2, batch_first=True)

    def forward(self, tokens):
        unseen = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool).triu(1)
        normed = self.norm(tokens)
        return tokens + self.attention(normed, normed, normed, attn_mask=unseen, need_weights=False)[0]


class Captioner(nn.Module):
    """Logits (N, T, 8) of a causal model: a word, 6 x 6 patches, two words. The highest logit is the first word's."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patch, self.words = nn.Conv2d(3, 12, 4, 4), nn.Embedding(4, 12)
        self.blocks, self.head = nn.Sequential(Causal(), Causal()), nn.Linear(12, 8)

    def forward(self, x):
        words = self.words(torch.tensor([[0, 1, 2]] * len(x)))
        tokens = self.blocks(torch.cat([words[:, :1], self.patch(x).flatten(2).mT, words[:, 1:]], dim=1))
        first = torch.zeros(tokens.shape[1], 1)
        first[0] = 100
        return self.head(tokens) + first


def test_the_next_token_has_the_layer_of_its_own_score_not_of_the_highest_logit():
    """No patch leads to the first word, in front of them, which has the highest logit."""
    model, x = Captioner().eval(), picture()[..., :24, :24]
    cam = GradCAM(model)
    maps = cam(x, lambda logits: logits[-1, 3])
    assert cam.location.name == "blocks.1.norm"

    def as_map(tokens):
        return tokens[:, 1:37].mT.unflatten(2, (6, 6))

    expected = literal.grad_cam(model, model.blocks[1].norm, x, lambda o: o[0, -1, 3], (24, 24), as_map)
    assert expected.max() == 1
    np.testing.assert_allclose(maps, expected, atol=1e-5)


def test_a_similarity_to_an_embedding_is_a_target():
    class Embedding(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = convolutional()

        def forward(self, x):
            return nn.functional.normalize(self.net(x), dim=1)

    model, x = Embedding().eval(), images()
    reference = model(images(seed=3))[0].detach()
    cam = GradCAM(model)
    maps = cam(x, lambda embedding: embedding @ reference)
    assert cam.location.name == "net.last"
    expected = literal.grad_cam(model, model.net.last, x, lambda o: (o @ reference).sum(), x.shape[2:])
    np.testing.assert_allclose(maps, expected, atol=1e-5)


class Streams(nn.Module):
    """Two inputs: features of both joined by the head, or maps of both joined by a convolution."""

    def __init__(self, early):
        super().__init__()
        torch.manual_seed(0)
        self.of_picture, self.of_flow, self.early = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(2, 8, 3, 2, 1), early
        self.joined, self.head = nn.Conv2d(16, 16, 1), nn.Linear(16, 5)

    def forward(self, picture, flow):
        maps = torch.cat([self.of_picture(picture).relu(), self.of_flow(flow).relu()], 1)
        return self.head((self.joined(maps).relu() if self.early else maps).mean((2, 3)))


def test_what_another_input_says_is_announced():
    generator = torch.Generator().manual_seed(1)
    picture, flow = (torch.randn(1, channels, 32, 32, generator=generator) for channels in (3, 2))
    late = Streams(early=False).eval()
    with pytest.warns(CamWarning, match=r"on of_picture, .* another input, \(1, 2, 32, 32\), .* spatial_from="):
        GradCAM(late)((picture, flow), 1)
    with pytest.warns(CamWarning, match=r"on of_flow, .* another input, \(1, 3, 32, 32\)"):
        GradCAM(late, spatial_from="flow")({"picture": picture, "flow": flow}, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", CamWarning)
        GradCAM(Streams(early=True).eval())((picture, flow), 1)


class OneByOne(nn.Module):
    """A network over the frames of clips (N, frames, 3, H, W), frame by frame or folded into the batch."""

    def __init__(self, folded):
        super().__init__()
        torch.manual_seed(0)
        self.features, self.head, self.folded = nn.Conv2d(3, 8, 3, 2, 1), nn.Linear(8, 5), folded

    def forward(self, clips):
        if self.folded:
            maps = self.features(clips.flatten(0, 1)).unflatten(0, clips.shape[:2])
        else:
            maps = torch.stack([self.features(frames) for frames in clips.unbind(1)], 1)
        return self.head(maps.relu().mean((1, 3, 4)))


def test_a_network_that_runs_frame_by_frame_is_refused_with_the_way_out():
    clips = torch.randn(2, 6, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with pytest.raises(ValueError, match="features runs 6 times, for a frame each: let it run once"):
        GradCAM(OneByOne(folded=False).eval(), axes="NTCHW")(clips, 1)
    assert GradCAM(OneByOne(folded=True).eval())(clips, 1).shape == (2, 6, 32, 32)
