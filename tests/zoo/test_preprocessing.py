"""Whose preprocessing a picture gets, and that an assumed one is said."""

import numpy as np
import pytest
import torch
from nets import convolutional
from PIL import Image
from torch import nn
from torchvision import models, transforms

from pytorch_grad_cam import CamWarning, explain
from pytorch_grad_cam.zoo.classifiers import UnusableInput, classifier_of
from pytorch_grad_cam.zoo.preprocessing import inputs_of, own_preprocessing

PHOTO = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


class Processor:
    """As transformers' image processors: pictures in, a mapping with a batch out."""

    image_mean, image_std, do_normalize = [0.5] * 3, [0.25] * 3, True

    def __call__(self, images, return_tensors):
        assert return_tensors == "pt"
        pixels = torch.from_numpy(np.array(images.resize((32, 24)))).movedim(-1, 0) / 255
        return {"pixel_values": ((pixels - 0.5) / 0.25)[None]}


class WithProcessor:
    """As transformers' processors, of texts too, and its pipelines."""

    def __init__(self, model=None):
        self.image_processor, self.model = Processor(), model


def assumptions_of(explanation, beginning):
    (line,) = [line for line in explanation.assumptions if line.startswith(beginning)]
    return line


@pytest.mark.parametrize("keyword", ["preprocess", "processor"])
@pytest.mark.parametrize("processor", [Processor(), WithProcessor()])
def test_a_processor_gives_the_input_and_the_picture(keyword, processor):
    net = convolutional()
    found = explain(net, PHOTO, **{keyword: processor})
    x = Processor()(Image.fromarray(PHOTO), "pt")["pixel_values"]
    with torch.no_grad():
        np.testing.assert_allclose(found.logits, net(x)[0], atol=1e-6)
    assert np.abs(found.picture - np.asarray(Image.fromarray(PHOTO).resize((32, 24)), dtype=float)).max() <= 1
    assert assumptions_of(found, "preprocessing") == "preprocessing: the given Processor"


def test_a_pipeline_is_its_model_with_its_processor():
    net = convolutional()
    found = explain(WithProcessor(net), PHOTO)
    np.testing.assert_array_equal(found.logits, explain(net, PHOTO, preprocess=Processor()).logits)


def test_two_names_for_one_preprocessing():
    with pytest.raises(ValueError, match="two names for one thing"):
        explain(convolutional(), PHOTO, preprocess=Processor(), processor=Processor())


def test_what_is_assumed_is_warned_of_once_and_said(recwarn):
    found = explain(convolutional(), PHOTO, ["gradcam", "eigencam"], targets=[0, 1])
    (warning,) = [each for each in recwarn if "preprocess=" in str(each.message)]
    assert issubclass(warning.category, CamWarning)
    assert warning.filename == __file__
    assert assumptions_of(found, "preprocessing").endswith("(assumed)")
    assert any("drawn where it looks, if that is certain" in line for line in found.assumptions)


@pytest.mark.parametrize(
    "image", [torch.zeros(1, 3, 24, 32), {"input": torch.zeros(1, 3, 24, 32)}], ids=["tensor", "mapping"]
)
def test_what_the_model_takes_is_not_preprocessed(image, recwarn):
    found = explain(convolutional(), image, "eigencam")
    assert not [each for each in recwarn if "preprocess=" in str(each.message)]
    assert assumptions_of(found, "preprocessing").startswith("preprocessing: none, the inputs were given")


def test_torchvisions_own_classifiers_need_no_warning():
    known = own_preprocessing(models.squeezenet1_0())
    assert (known.is_assumed, known.mean) == (False, (0.485, 0.456, 0.406))
    assert own_preprocessing(models.squeezenet1_0(num_classes=5)).is_assumed, "somebody trained it further"


@pytest.mark.parametrize(
    ("build", "side"),
    [
        (lambda: models.VisionTransformer(64, 32, 1, 2, 16, 32), 64),
        (lambda: models.inception_v3(init_weights=False), 299),
    ],
)
def test_torchvisions_models_of_another_size(build, side):
    with torch.device("meta"):
        model = build()
    assert own_preprocessing(model).function(Image.new("RGB", (600, 500))).shape == (3, side, side)


def test_one_channel_is_grey():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    with pytest.warns(CamWarning, match="grey, the centre 224 x 224 px"):
        found = explain(net, PHOTO, "eigencam")
    assert (found.picture[..., 0] == found.picture[..., 2]).all()


def test_other_channels_need_a_preprocessing():
    with pytest.raises(UnusableInput, match="4 channels, which no picture has: pass preprocess="):
        explain(nn.Sequential(nn.Conv2d(4, 4, 3)), PHOTO)


def test_timm_configurations():
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3)
    preprocessing = own_preprocessing(model)
    assert (preprocessing.is_assumed, preprocessing.mean, preprocessing.std) == (False, (0.5,) * 3, (0.5,) * 3)
    assert preprocessing.function(Image.new("RGB", (300, 260))).shape == (3, 224, 224)


@pytest.fixture(scope="module")
def vit():
    """A tiny random ViT of transformers for images of 32 x 32 pixels, whose mean is 0.4."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    size = {"image_size": 32, "patch_size": 8}
    config = transformers.ViTConfig(
        **size, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16
    )
    config.id2label = {0: "cat", 1: "dog"}
    model = transformers.ViTForImageClassification(config).eval()
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=[0.4] * 3)
    return model, processor


def test_a_folder_of_transformers_has_its_processor(vit, tmp_path, recwarn):
    model, processor = vit
    model.save_pretrained(tmp_path / "vit")
    processor.save_pretrained(tmp_path / "vit")
    x = processor(images=Image.fromarray(PHOTO), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = model(x).logits
    for given in (str(tmp_path / "vit"), type(model).from_pretrained(tmp_path / "vit")):
        found = explain(given, PHOTO)
        np.testing.assert_allclose(found.logits, expected[0], atol=1e-6)
        np.testing.assert_allclose(found.probabilities, expected[0].softmax(0), atol=1e-6)
        assert "saved with" in assumptions_of(found, "preprocessing")
        assert found.panels[0].name in ("cat", "dog")
    assert not [each for each in recwarn if "preprocess=" in str(each.message)]


def test_a_transformers_model_without_its_processor_has_its_familys(vit):
    """Of its own size, and by 0.5, not by ImageNet's mean."""
    model, _ = vit
    with pytest.warns(CamWarning, match="the default ViTImageProcessor.* at 32 x 32 px is assumed"):
        explain(model, PHOTO)
    preprocessing = own_preprocessing(model)
    assert preprocessing.mean == (0.5,) * 3
    assert inputs_of(preprocessing.function(Image.fromarray(PHOTO))).shape == (1, 3, 32, 32)


@pytest.mark.parametrize(
    "returned",
    [
        lambda x: x,
        lambda x: x[None],
        lambda x: x.numpy(),
        lambda x: x.movedim(0, -1).numpy(),
        lambda x: {"image": x},
        lambda x: {"pixel_values": [x.numpy()]},
    ],
    ids=["tensor", "batch", "array", "channels last", "mapping", "list of arrays"],
)
def test_what_a_preprocessing_may_return(returned):
    x = transforms.ToTensor()(Image.fromarray(PHOTO))
    assert torch.equal(inputs_of(returned(x)), x[None])


def test_several_entries_are_arguments():
    x = torch.rand(3, 24, 32)
    found = inputs_of({"pixel_values": x, "bool_masked_pos": torch.zeros(1, 4, dtype=torch.bool)})
    assert {name: tuple(entry.shape) for name, entry in found.items()} == {
        "pixel_values": (1, 3, 24, 32),
        "bool_masked_pos": (1, 4),
    }


def test_what_is_no_preprocessing():
    with pytest.raises(UnusableInput, match="preprocess is int: pass preprocess=, a callable"):
        classifier_of(convolutional(), preprocess=224)
    with pytest.raises(UnusableInput, match="what preprocess returns is Image"):
        explain(convolutional(), PHOTO, preprocess=lambda image: image)


def test_a_tensor_in_the_unit_range_is_no_normalised_one(digits_net):
    with pytest.warns(CamWarning, match=r"all values of the input lie in \[0, 1\]"):
        explain(digits_net, torch.rand(3, 64, 64))


def test_a_model_that_does_not_run_on_what_was_assumed_names_the_way_out():
    with pytest.raises(UnusableInput, match=r"does not run on what torchvision's for ImageNet .*pass preprocess="):
        explain(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 30 * 30, 2)), PHOTO)


def test_the_size_of_a_transformers_model_for_texts_too():
    transformers = pytest.importorskip("transformers")
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.SiglipConfig(vision_config={**size, "image_size": 32, "patch_size": 8}, text_config=size)
    preprocessing = own_preprocessing(transformers.SiglipForImageClassification(config))
    assert preprocessing.mean == (0.5,) * 3
    assert inputs_of(preprocessing.function(Image.fromarray(PHOTO))).shape == (1, 3, 32, 32)
