"""Fine-tuned weights as training frameworks write them."""

import pytest
import torch
from nets import convolutional
from torch import nn

from pytorch_grad_cam.zoo.checkpoints import load_state, read_state
from pytorch_grad_cam.zoo.classifiers import UnusableInput, load_classifier


def other_weights():
    return convolutional(seed=9).state_dict()


def prefixed(prefix):
    return {prefix + name: value for name, value in other_weights().items()}


@pytest.mark.parametrize(
    ("content", "undone"),
    [
        (other_weights(), []),
        (prefixed("module."), ["without the prefix 'module.'"]),
        (
            {"epoch": 3, "state_dict": {**prefixed("model."), "loss.weight": torch.zeros(2)}},
            [
                "in 'state_dict'",
                "without the prefix 'model.'",
                "without 1 other entries, such as loss.weight",
            ],
        ),
        ({"checkpoint": 1, "model": {"state_dict": prefixed("_orig_mod.")}}, ["in 'model'", "in 'state_dict'"]),
    ],
    ids=["plain", "DDP", "Lightning", "compiled"],
)
def test_nesting_and_prefixes_are_undone_and_said(content, undone, tmp_path):
    file = str(tmp_path / "weights.pt")
    torch.save(content, file)
    model = convolutional()
    state, found = read_state(file)
    found += load_state(model, file, state)
    assert found[: len(undone)] == undone
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in other_weights().items())


def test_safetensors(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(prefixed("model."), tmp_path / "weights.safetensors")
    state, undone = read_state(str(tmp_path / "weights.safetensors"))
    assert (state.keys(), undone) == (prefixed("model.").keys(), [])


def test_what_does_not_fit_names_the_first_keys(tmp_path):
    state = prefixed("net.")
    state["net.head.weight"] = torch.zeros(7, 16)
    state["net.more"] = state.pop("net.stem.bias")
    with pytest.raises(UnusableInput) as raised:
        load_state(convolutional(), "weights.pt", state)
    assert str(raised.value) == (
        "weights.pt does not fit Sequential: missing: stem.bias; not in the model: more; of another shape: head.weight "
        "(7, 16) for (5, 16)"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3, "loss": 0.1}, "has no state dict, but a dict with epoch, loss"),
        ([torch.zeros(2)], "has no state dict, but <class 'list'>"),
        (nn.Linear(2, 2), "is no state dict that can be read without running code of it"),
    ],
)
def test_what_is_no_state_dict(content, message, tmp_path):
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(UnusableInput, match=message):
        read_state(str(tmp_path / "weights.pt"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["squeezenet1_1", "lcnet_035"])
def test_as_many_classes_as_the_weights_have(name, tmp_path):
    if name == "lcnet_035":
        timm = pytest.importorskip("timm")
        trained = timm.create_model(name, num_classes=3)
    else:
        from torchvision import models

        trained = models.get_model(name, num_classes=3)
    torch.save(
        {"state_dict": {f"model.{key}": value for key, value in trained.state_dict().items()}}, tmp_path / "w.pt"
    )
    classifier = load_classifier(name, str(tmp_path / "w.pt"))
    assert classifier.categories is None
    assert classifier.notes == [
        f"weights: {tmp_path / 'w.pt'}, in 'state_dict', with 3 classes by its last layer, without the prefix 'model.'"
    ]
    assert all(torch.equal(value, classifier.model.state_dict()[key]) for key, value in trained.state_dict().items())
