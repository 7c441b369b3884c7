"""Targets that mean a region: of dense outputs, of queries with masks, of masks for prompts."""

import numpy as np
import pytest
import torch
from nets import images
from torch import nn

from pytorch_grad_cam import AblationCAM, CamWarning, GradCAM, HiResCAM, ScoreCAM, SegmentationTarget
from pytorch_grad_cam.engine.segmentation.regions import at_grid, cell_of, connected_parts
from pytorch_grad_cam.engine.targets import resolve_targets, scores_in, target_scores
from pytorch_grad_cam.utils.model_targets import SemanticSegmentationTarget

IMAGES = (2, 3, 12, 16)  # four times as large as the outputs


def dense(classes=3, spatial=(3, 4)):
    return torch.randn(2, classes, *spatial, generator=torch.Generator().manual_seed(2))


def score(target, outputs, shape=IMAGES):
    return target_scores(outputs, resolve_targets(target, outputs, shape))


def queries(seed=0):
    """Two images, five queries, three classes and 'no object', masks of 3 x 4."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "class_queries_logits": 3 * torch.randn(2, 5, 4, generator=generator),
        "masks_queries_logits": 3 * torch.randn(2, 5, 3, 4, generator=generator),
    }


def prompts(count=1):
    generator = torch.Generator().manual_seed(0)
    masks = torch.randn(2, count, 3, 3, 4, generator=generator)
    return {"iou_scores": torch.rand(2, count, 3, generator=generator), "pred_masks": masks}


class Segmenter(nn.Module):
    """Counts its forwards. form: from logits (N, 3, h, w) to what it returns. Strides of 2 and 4."""

    def __init__(self, form=lambda logits: logits):
        super().__init__()
        torch.manual_seed(22)  # all three classes are predicted in both images
        self.early = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU())
        self.late = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.ReLU())
        self.head = nn.Conv2d(6, 3, 1)
        self.form, self.forwards = form, 0

    def forward(self, x):
        self.forwards += 1
        return self.form(self.head(self.late(self.early(x))))


def test_a_class_where_it_is_predicted():
    outputs = dense()
    expected = [sample[1][sample.argmax(0) == 1].sum() for sample in outputs]
    torch.testing.assert_close(score(SegmentationTarget(1), outputs), torch.stack(expected))
    torch.testing.assert_close(score(SegmentationTarget(-2, mask="predicted"), outputs), torch.stack(expected))
    torch.testing.assert_close(score(SegmentationTarget(1), outputs), score(1, outputs))


def test_a_mask_of_the_image_or_of_the_output():
    outputs = dense()
    of_image = torch.zeros(12, 16)
    of_image[4:6, 4:8] = 1  # half of the cell (1, 1)
    expected = outputs[:, 2, 1, 1] / 2
    torch.testing.assert_close(score(SegmentationTarget(2, of_image.bool().numpy()), outputs), expected)
    of_output = torch.zeros(3, 4, dtype=torch.bool)
    of_output[1, 1] = True
    torch.testing.assert_close(score(SegmentationTarget(2, of_output), outputs), 2 * expected)
    torch.testing.assert_close(score(SemanticSegmentationTarget(2, of_output), outputs), 2 * expected)


def test_one_pixel_is_not_lost_between_cells():
    mask = torch.zeros(12, 16)
    mask[3, 3] = 1
    assert at_grid(mask, (3, 4))[0, 0] == 1 / 16


def test_a_point_is_in_pixels_of_the_image():
    outputs = dense()
    torch.testing.assert_close(score(SegmentationTarget(2, point=(11.5, 4)), outputs), outputs[:, 2, 2, 1])
    found = score(SegmentationTarget(point=(0, 15)), outputs)
    torch.testing.assert_close(found, outputs[:, :, 0, 3].amax(1), msg="of the class that is predicted there")
    assert cell_of((5, 3, 9), (6, 12, 10), (2, 3, 5)) == (1, 0, 4)


def test_connected_parts():
    mask = torch.tensor([[1, 1, 0, 0, 1], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0], [1, 0, 0, 1, 1]], dtype=torch.bool)
    numbers, found = connected_parts(mask)
    assert [int((numbers == number).sum()) for number in found] == [3, 2, 1, 1]
    assert numbers[0, 0] == numbers[1, 2] == found[0]
    assert numbers[~mask].eq(0).all()


def test_parts_of_winding_regions_and_volumes():
    winding = torch.zeros(41, 41, dtype=torch.bool)
    for row in range(0, 41, 4):
        winding[row] = True
        winding[row : row + 5, -1 if row % 8 == 0 else 0] = True
    assert len(connected_parts(winding)[1]) == 1
    volume = torch.zeros(4, 4, 4, dtype=torch.bool)
    volume[0, 0, 0] = volume[1, 1, 1] = volume[3, 3, 3] = True
    assert len(connected_parts(volume)[1]) == 2
    assert connected_parts(torch.zeros(3, 3, dtype=torch.bool))[1] == []


def islands():
    """Class 1 in a part of two cells and in one of a single cell."""
    logits = torch.zeros(1, 2, 3, 4)
    logits[0, 0] = 1
    logits[0, 1, 0, :2] = torch.tensor([2.0, 3.0])
    logits[0, 1, 2, 3] = 7
    return logits


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (SegmentationTarget(1), 12),
        (SegmentationTarget(1, instance=0), 5),
        (SegmentationTarget(1, instance=1), 7),
        (SegmentationTarget(1, mask="predicted", point=(1, 7)), 5),
        (SegmentationTarget(mask="predicted", point=(11, 15)), 7),
        (SegmentationTarget(1, point=(1, 7)), 3),
    ],
    ids=str,
)
def test_objects_of_a_dense_output(target, expected):
    assert score(target, islands(), (1, 3, 12, 16)) == expected


def test_one_logit_with_and_without_its_axis():
    outputs = dense(classes=1)
    expected = outputs.relu().sum((1, 2, 3))
    for target in (SegmentationTarget(), SegmentationTarget(0)):
        torch.testing.assert_close(score(target, outputs), expected)
        torch.testing.assert_close(score(target, outputs[:, 0]), expected, msg="(N, h, w), as CLIPSeg gives it")


def test_volumes_and_signals():
    assert score(SegmentationTarget(0, point=(3, 2, 1)), dense(2, (2, 2, 2)), (2, 1, 4, 4, 4)).shape == (2,)
    outputs = dense(2, (5,))
    torch.testing.assert_close(score(SegmentationTarget(0, point=(19,)), outputs, (2, 1, 20)), outputs[:, 0, 4])


def test_queries_by_class_as_their_library_puts_them_together():
    outputs = queries()
    classes, masks = outputs["class_queries_logits"].softmax(-1)[..., :-1], outputs["masks_queries_logits"].sigmoid()
    of_pixels = torch.einsum("nqc,nqhw->nchw", classes, masks)
    read = scores_in(outputs)
    torch.testing.assert_close(read.plain, of_pixels)
    for sample in range(2):
        category = int(of_pixels[sample].argmax(0)[1, 2])
        expected = 0.0
        for row in range(3):
            for column in range(4):
                if of_pixels[sample, :, row, column].argmax() == category:
                    spoken = [classes[sample, q, category] * masks[sample, q, row, column] for q in range(5)]
                    query = int(torch.stack(spoken).argmax())
                    expected += outputs["masks_queries_logits"][sample, query, row, column]
                    expected += outputs["class_queries_logits"][sample, query, category]
        found = SegmentationTarget(category)(read[sample])
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(score(category, read)[sample], expected, msg="a class alone means the same")
    callables = score(lambda of_sample: of_sample[1].sum(), read)
    torch.testing.assert_close(callables, of_pixels[:, 1].sum((1, 2)))


def test_objects_of_queries():
    """The surest first, each where it speaks most of those that are objects."""
    classes = torch.tensor([[[0.0, 4, 0], [9, 0, 0], [0, 0, 9], [0, 6, 0]]])  # classes 1, 0, none, 1
    masks = torch.full((1, 4, 2, 3), -9.0)
    masks[0, 0, 0, 0], masks[0, 1, 1], masks[0, 2], masks[0, 3, 0, 1:] = 5, 6, 9, 7
    read = scores_in({"class_queries_logits": classes, "masks_queries_logits": masks})
    shape = (1, 3, 8, 12)
    assert score(SegmentationTarget(instance=0), read, shape) == 3 * (6 + 9)
    assert score(SegmentationTarget(instance=1), read, shape) == 2 * (7 + 6)
    assert score(SegmentationTarget(1, instance=1), read, shape) == 5 + 4
    assert score(SegmentationTarget(instance=0, mask=np.ones((2, 3))), read, shape) == 3 * 6 - 3 * 9 + 6 * 9
    with pytest.raises(ValueError, match="instance 1 of class 0 was asked for, but there are 1"):
        score(SegmentationTarget(0, instance=1), read, shape)


def test_prompts():
    outputs = prompts(2)
    read = scores_in(outputs)
    best = outputs["iou_scores"].argmax(-1)
    for prompt in range(2):
        masks = torch.stack([outputs["pred_masks"][n, prompt, best[n, prompt]] for n in range(2)])
        found = score(SegmentationTarget(instance=prompt), read)
        torch.testing.assert_close(found, masks.relu().sum((1, 2)))
    torch.testing.assert_close(
        score(SegmentationTarget(), scores_in(prompts())), score(SegmentationTarget(instance=0), scores_in(prompts()))
    )
    for target, message in (
        (SegmentationTarget(), "masks of 2 prompts: pass instance"),
        (SegmentationTarget(3), "class 3.*masks of prompts have no classes"),
        (SegmentationTarget(instance=2), "instance 2 was asked for, but there are 2"),
        (1, r"several tensors.*SegmentationTarget\(instance=0\)"),
    ):
        with pytest.raises(ValueError, match=message):
            score(target, read)


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (SegmentationTarget(3), IndexError, "class 3: the model's output has 3 classes, from 0"),
        (SegmentationTarget(), ValueError, r"the output has 3 classes: say which one, or point=\(y, x\)"),
        (SegmentationTarget(0, point=(12, 3)), ValueError, r"point \(12.0, 3.0\) lies outside.*pixels of 12 x 16"),
        (SegmentationTarget(0, point=(1, -1)), ValueError, "lies outside"),
        (SegmentationTarget(0, point=(1, 2, 3)), ValueError, "has 3 numbers, expected one for each axis of 12 x 16"),
        (SegmentationTarget(0, mask=np.ones((6, 8))), ValueError, r"shape \(6, 8\), expected.*12 x 16.*3 x 4"),
        (SegmentationTarget(0, instance=9), ValueError, "instance 9 of class 0 was asked for, but there are"),
    ],
    ids=str,
)
def test_what_is_not_there_is_refused(target, error, message):
    with pytest.raises(error, match=message):
        score(target, dense())


def test_a_class_that_is_predicted_nowhere():
    outputs = dense()
    outputs[:, 2] -= 100
    with pytest.raises(ValueError, match=r"class 2 is predicted nowhere: mask= or point="):
        score(SegmentationTarget(2), outputs)
    with pytest.raises(ValueError, match=r"class 2 is predicted not at the point \(1.0, 2.0\)"):
        score(SegmentationTarget(2, "predicted", (1, 2)), outputs)
    assert (score(SegmentationTarget(2, point=(1, 2)), outputs) < -90).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mask": np.zeros((4, 4))}, "the mask is empty"),
        ({"mask": np.array([[0, 1, 255]], np.uint8)}, r"values \[0, 1, 255\], as a map of labels: pass labels == 1"),
        ({"mask": "predict"}, "'predict', expected an array, 'predicted' or None"),
        ({"mask": np.ones((4, 4)), "point": (1, 2)}, "a mask and a point"),
        ({"point": (1, 2), "instance": 0}, "a point and an instance"),
        ({"instance": -1}, "numbered from 0, not -1"),
    ],
)
def test_what_means_nothing_is_refused_at_once(arguments, message):
    with pytest.raises(ValueError, match=message):
        SegmentationTarget(1, **arguments)


def test_outputs_that_have_no_regions():
    with pytest.raises(ValueError, match=r"a region needs an output \(N, classes, \*spatial\).*shape \(5,\)"):
        score(SegmentationTarget(1), torch.zeros(2, 5))
    with pytest.raises(ValueError, match=r"\(N, h, w\).*one mask.*SegmentationTarget\(\)"):
        score(1, dense(classes=1)[:, 0])


@pytest.mark.parametrize("form", ["dense", "queries"])
def test_several_regions_from_one_forward(form):
    def as_queries(logits):
        return {"class_queries_logits": 4 * torch.eye(3, 4).repeat(len(logits), 1, 1), "masks_queries_logits": logits}

    model, x = Segmenter(as_queries if form == "queries" else lambda logits: logits), images()
    region = np.zeros((12, 16))
    region[:6, :6] = 1
    targets = [
        SegmentationTarget(0, region),
        SegmentationTarget(1, point=(9, 9)),
        SegmentationTarget(point=(2, 14), mask="predicted"),
    ]
    with GradCAM(model, "early", check_place=False) as cam:
        cam(x, SegmentationTarget(1, region))  # which looks at the layer, once
        model.forwards = 0
        maps = cam(x, [targets] * 2)
        assert model.forwards == 1
        for number, target in enumerate(targets):
            np.testing.assert_allclose(maps[:, number], cam(x, target), atol=1e-6)
    assert maps.shape == (2, 3, 12, 16)


def test_a_region_as_the_gradient_has_it():
    model, x = Segmenter(), images()
    region = torch.zeros(12, 16)
    region[4:8, 8:16] = 1
    activations = model.early(x)
    gradients = torch.autograd.grad(model.head(model.late(activations))[:, 1, 1, 2:].sum(), activations)[0]
    expected = (activations * gradients).sum(1).relu().detach()
    with HiResCAM(model, "early", normalize=None, check_place=False) as cam:
        found = cam(x, SegmentationTarget(1, region), as_tensor=True)
    enlarged = nn.functional.interpolate(expected[:, None], size=(12, 16), mode="bilinear")[:, 0]
    torch.testing.assert_close(found, enlarged)


@pytest.mark.parametrize("changing", [ScoreCAM, AblationCAM])
def test_changed_copies_of_queries(changing):
    def as_queries(logits):
        return {"class_queries_logits": 4 * torch.eye(3, 4).repeat(len(logits), 1, 1), "masks_queries_logits": logits}

    x = images()
    with changing(Segmenter(as_queries), "late", check_place=False) as cam:
        region = scores_in(Segmenter(as_queries)(x)).segments[0].predicted(0)
        expected = cam(x[:1], lambda scores: scores.sum()), cam(x[:1], SegmentationTarget(0, region))
        np.testing.assert_allclose(cam(x[:1], SegmentationTarget(0)), expected[1], atol=1e-5)
        assert np.abs(expected[0] - expected[1]).max() > 0.01


@pytest.mark.parametrize("changing", [ScoreCAM, AblationCAM])
def test_changed_copies_are_asked_about_the_same_pixels(changing):
    model, x = Segmenter(), images()
    region = model(x)[0].argmax(0) == 0
    fixed = SemanticSegmentationTarget(0, region)
    with changing(model, "late", check_place=False) as cam:
        np.testing.assert_allclose(cam(x[:1], SegmentationTarget(0)), cam(x[:1], fixed), atol=1e-5)


def test_flipped_images():
    model, x = Segmenter(), images()
    with GradCAM(model, "early", check_place=False) as cam:
        np.testing.assert_allclose(cam(x, SegmentationTarget(0), aug_smooth=True), cam(x, 0, aug_smooth=True))
        for target in (SegmentationTarget(0, point=(1, 2)), SegmentationTarget(0, instance=0)):
            for targets in (target, [[target, SegmentationTarget(0)]] * 2):
                with pytest.raises(ValueError, match=r"a box or a region is asked for.*aug_smooth"):
                    cam(x, targets, aug_smooth=True)


@pytest.mark.filterwarnings("error")
def test_zero_configuration():
    model = Segmenter(lambda logits: {"out": nn.functional.interpolate(logits, scale_factor=4.0)})
    with GradCAM(model, check_place=False) as cam:
        cam(images(), SegmentationTarget(1, point=(6, 6)))
    assert cam.location.name == "late"


def test_a_detector_is_told_of_its_own_targets():
    outputs = [{"boxes": torch.rand(1, 4), "labels": torch.tensor([1]), "scores": torch.tensor([0.9])}]
    with pytest.raises(ValueError, match=r"a region needs an output.*dict"):
        resolve_targets(SegmentationTarget(1), outputs, (1, 3, 8, 8))


def test_names():
    assert repr(SegmentationTarget(3, np.ones((4, 6)))) == "SegmentationTarget(3, mask=<4 x 6>)"
    assert repr(SegmentationTarget(point=(1, 2.5))) == "SegmentationTarget(point=(1, 2.5))"
    assert repr(SegmentationTarget(3, "predicted", instance=1)) == "SegmentationTarget(3, mask='predicted', instance=1)"


def test_a_class_that_is_nowhere_among_queries_is_explained_everywhere():
    outputs = queries()
    outputs["class_queries_logits"][:, :, 2] = -100
    with pytest.warns(CamWarning, match="class 2 of sample 0: predicted nowhere"):
        resolve_targets(2, scores_in(outputs), IMAGES)
