"""Quantus calls us as it calls its own explanation functions; with Quantus itself where it is installed."""

import copy

import numpy as np
import pytest
from nets import convolutional, images

from pytorch_grad_cam import EigenCAM, GradCAM
from pytorch_grad_cam.evaluation.quantus_adapter import quantus_explainer
from pytorch_grad_cam.metrics.localisation import energy_pointing_game


def test_the_form_of_the_call():
    """Arrays in and out, by keyword, with options of Quantus' own that mean nothing here."""
    model, x = convolutional(), images()
    for method, cls in (("gradcam", GradCAM), (EigenCAM, EigenCAM)):
        found = quantus_explainer(method, "last")(
            model=model, inputs=x.numpy(), targets=np.array([1, 3]), device=None, img_size=16
        )
        assert found.shape == (2, 1, 12, 16)
        assert isinstance(found, np.ndarray)
        np.testing.assert_allclose(found[:, 0], cls(model, "last")(x, [1, 3]), atol=1e-6)


def test_copies_of_the_model_are_explained_themselves():
    model, x = convolutional(), images().numpy()
    explain = quantus_explainer("gradcam", "last")
    other = copy.deepcopy(model)
    other.head.reset_parameters()
    first, second, again = (explain(each, x, np.array([1, 3])) for each in (model, other, model))
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(first, again)


def test_options_are_those_of_the_constructor():
    model, x = convolutional(), images()
    found = quantus_explainer("gradcam", "last", align="receptive_field")(model, x.numpy(), np.array([1, 3]))
    np.testing.assert_allclose(found[:, 0], GradCAM(model, "last", align="receptive_field")(x, [1, 3]), atol=1e-6)


def test_quantus_itself():
    quantus = pytest.importorskip("quantus")
    model, x = convolutional(), images().numpy()
    masks = np.zeros((2, 1, 12, 16), dtype=bool)
    masks[:, :, 3:9, 4:12] = True
    metric = quantus.RelevanceMassAccuracy(abs=False, normalise=False, disable_warnings=True)
    scores = metric(
        model=model, x_batch=x, y_batch=np.array([1, 3]), s_batch=masks, device="cpu",
        explain_func=quantus_explainer("gradcam", "last"),
    )  # fmt: skip
    maps = GradCAM(model, "last")(images(), [1, 3])
    np.testing.assert_allclose(scores, energy_pointing_game(maps, masks[:, 0]), atol=1e-5)
