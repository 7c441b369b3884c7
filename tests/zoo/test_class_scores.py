"""Probabilities are the model's own: nothing is applied twice, and one output is two classes."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from nets import convolutional
from torch import nn

from pytorch_grad_cam import GradCAM, explain
from pytorch_grad_cam.utils.model_targets import BinaryClassifierOutputTarget

X = torch.randn(1, 3, 24, 32, generator=torch.Generator().manual_seed(3))


def said(found):
    (line,) = [line for line in found.assumptions if line.startswith("probabilities: ")]
    return line.removeprefix("probabilities: ")


def with_end(*end, outputs=5):
    net = convolutional()
    torch.manual_seed(1)
    net.head = nn.Linear(16, outputs)
    return nn.Sequential(net, *end).eval()


class Halves(nn.Module):
    """The mean of two softmaxes, by products and a sum."""

    def forward(self, x):
        return 0.5 * x.softmax(1) + 0.5 * (2 * x).softmax(1)


@pytest.mark.parametrize(
    ("end", "own"),
    [
        (nn.Softmax(1), lambda outputs: outputs),
        (nn.Sigmoid(), lambda outputs: outputs),
        (nn.LogSoftmax(1), torch.exp),
        (Halves(), lambda outputs: outputs),
        (nn.Hardsigmoid(), lambda outputs: outputs),
        (nn.Identity(), lambda outputs: outputs.softmax(1)),
    ],
    ids=lambda each: type(each).__name__,
)
def test_probabilities_are_the_models_own(end, own):
    net = with_end(end)
    found = explain(net, X, "eigencam")
    with torch.no_grad():
        np.testing.assert_allclose(found.probabilities, own(net(X))[0], atol=1e-6)
    assert ("assumed" in said(found)) == isinstance(end, Halves | nn.Hardsigmoid | nn.Identity)


def test_small_logits_above_zero_are_no_probabilities():
    """All of five logits may lie in [0, 1] by chance: what computed them tells."""
    net = with_end()
    net[0].head.weight.data *= 1e-3
    net[0].head.bias.data[:] = torch.linspace(0.1, 0.9, 5)
    found = explain(net, X, "eigencam")
    with torch.no_grad():
        np.testing.assert_allclose(found.probabilities, net(X).softmax(1)[0], atol=1e-6)


@pytest.mark.parametrize(
    ("given", "own"),
    [
        ("softmax", lambda outputs: outputs.softmax(1)),
        ("sigmoid", torch.sigmoid),
        ("none", lambda outputs: outputs),
        (lambda outputs: outputs.clamp(0, 1), lambda outputs: outputs.clamp(0, 1)),
    ],
)
def test_probabilities_as_given(given, own):
    net = with_end()
    found = explain(net, X, "eigencam", probabilities=given)
    with torch.no_grad():
        np.testing.assert_allclose(found.probabilities, own(net(X))[0], atol=1e-6)
    assert "given" in said(found)


def test_other_probabilities_are_refused():
    with pytest.raises(ValueError, match="probabilities is 'logits': pass 'softmax', 'sigmoid', 'none' or a callable"):
        explain(with_end(), X, probabilities="logits")


def test_several_labels_by_a_transformers_configuration():
    net = with_end()
    net.config = SimpleNamespace(problem_type="multi_label_classification")
    found = explain(net, X, "eigencam")
    with torch.no_grad():
        np.testing.assert_allclose(found.probabilities, net(X).sigmoid()[0], atol=1e-6)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("end", [(), (nn.Sigmoid(),)], ids=["logit", "probability"])
def test_one_output_is_two_classes(end, sign):
    net = with_end(*end, outputs=1)
    net[0].head.bias.data[:] = 2 * sign
    net[0].head.weight.data *= 0.1
    found = explain(net, X, targets=["healthy", "ill"], categories=["healthy", "ill"], layers=["0.last"], align="cell")
    with torch.no_grad():
        positive = (net(X) if end else net(X).sigmoid()).item()
    assert [(panel.category, panel.name) for panel in found.panels] == [(0, "healthy"), (1, "ill")]
    assert [panel.probability for panel in found.panels] == pytest.approx([1 - positive, positive], abs=1e-6)
    assert found.top(1)[0][1] == ("ill" if sign > 0 else "healthy")
    assert explain(net, X, categories=["healthy", "ill"], layers="0.last").panels[0].category == (sign > 0)
    for panel in found.panels:
        target = BinaryClassifierOutputTarget(panel.category)
        np.testing.assert_allclose(panel.map, GradCAM(net, "0.last")(X, target)[0], atol=1e-5)


@pytest.mark.parametrize(
    ("categories", "names"), [(None, ["class 0", "class 1"]), (["ill"], ["not ill", "ill"])], ids=["none", "one"]
)
def test_names_of_one_output(categories, names):
    found = explain(with_end(outputs=1), X, "eigencam", targets=[0, 1], categories=categories)
    assert [panel.name for panel in found.panels] == names


def test_three_names_for_one_output_are_refused():
    with pytest.raises(ValueError, match="3 names, but the model has one output, for two classes"):
        explain(with_end(outputs=1), X, categories=["a", "b", "c"])


def test_a_regression_is_no_class():
    net = with_end(outputs=1)
    net.config = SimpleNamespace(problem_type="regression")
    found = explain(net, X, "eigencam")
    with torch.no_grad():
        np.testing.assert_allclose(found.probabilities, net(X)[0], atol=1e-6)


def test_imagenets_names_are_said_to_be_assumed():
    found = explain(with_end(outputs=1000), X, "eigencam")
    assert "class names: ImageNet's, for there are 1,000 classes (assumed)" in found.assumptions


class TwoHeads(nn.Module):
    """Two tensors of which either could be the scores."""

    def forward(self, x):
        return x.mean((2, 3)), x.amax((2, 3))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(2)),
            r"Sequential gives no class scores \(N, classes\), but \(1, 2, 660\): pass an output_transform",
        ),
        (TwoHeads(), r"several tensors of the output could be the scores: output\[0\] .*output_transform="),
    ],
)
def test_outputs_that_are_no_class_scores(model, message):
    with pytest.raises(ValueError, match=message):
        explain(model, X)
