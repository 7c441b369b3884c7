"""Maps during validation, by a trainer that calls what Lightning's calls, in its order and its modes."""

import builtins
import sys
from functools import partial
from types import ModuleType, SimpleNamespace

import pytest
import torch
from nets import convolutional, images
from torch import nn

from pytorch_grad_cam import EigenCAM, GradCAM
from pytorch_grad_cam.callbacks.lightning import ValidationMaps, cam_callback

BATCH, TRAINING_BATCHES, VALIDATION_BATCHES = 16, 60, 15


class Module(nn.Module):
    """What a LightningModule has: a network within, its own forward, steps."""

    def __init__(self):
        super().__init__()
        self.net, self.rows = convolutional(), 0
        self.net.stem.register_forward_hook(self.count)

    def count(self, module, args, output):
        self.rows += len(output)

    def forward(self, x):
        return self.net(x)

    def loss(self, batch):
        x, classes = batch
        return nn.functional.cross_entropy(self(x), classes)


class Trainer:
    """The hooks of Lightning's Trainer: validation in evaluation mode and inference mode, a sanity check first."""

    def __init__(self, callback, is_global_zero=True):
        self.callback, self.is_global_zero, self.sanity_checking = callback, is_global_zero, False

    def validate(self, module, batches):
        module.eval()
        for index, batch in enumerate(batches):
            with torch.inference_mode():
                outputs = module.loss(batch)
                self.callback.on_validation_batch_end(self, module, outputs, batch, index, 0)
        module.train()

    def fit(self, module, epochs=1):
        optimizer = torch.optim.SGD(module.parameters(), 0.1)
        batches = [(images(count=BATCH, seed=seed), torch.arange(BATCH) % 5) for seed in range(3)]
        self.sanity_checking = True
        self.validate(module, batches[:2])
        self.sanity_checking, module.rows = False, 0
        for _ in range(epochs):
            for index in range(TRAINING_BATCHES):
                optimizer.zero_grad()
                module.loss(batches[index % 3]).backward()
                optimizer.step()
            self.validate(module, batches * (VALIDATION_BATCHES // 3))


def trained(use=None, is_global_zero=True, epochs=1, **options):
    module, seen = Module(), []
    maps = ValidationMaps(use or (lambda *given: seen.append(given)), **options)
    trainer = Trainer(SimpleNamespace(on_validation_batch_end=maps), is_global_zero)
    torch.manual_seed(0)
    trainer.fit(module, epochs)
    return module, trainer, seen


def test_maps_of_each_validation_epoch():
    module, trainer, seen = trained(epochs=2, target_layers="net.last", targets=3)
    x = images(count=BATCH, seed=0)[:8]
    assert len(seen) == 2
    assert all(given[0] is trainer for given in seen)
    assert all(torch.equal(given[1], x) for given in seen)
    expected = GradCAM(module, "net.last")(x, 3, as_tensor=True)
    torch.testing.assert_close(seen[1][2], expected)
    assert (seen[0][2] - expected).abs().max() > 0.01, "the network has learnt"


def test_the_training_is_as_without_maps():
    with_maps, _, seen = trained(network="net", target_layers="last")
    without, _, nothing = trained(network="net", target_layers="last", is_global_zero=False)
    assert seen
    assert not nothing
    torch.testing.assert_close(with_maps.state_dict(), without.state_dict(), rtol=0, atol=0)
    assert with_maps.training


def test_three_percent_of_an_epoch():
    """Counted in images that go through the network forwards; a training step's backward counts as two of them."""
    module, _, _ = trained(target_layers="net.last")
    without, _, _ = trained(is_global_zero=False)
    forwards = module.rows - without.rows
    assert forwards == 8 + 2  # the check of the place, once
    backward_and_forward = 3 * forwards  # if the whole network were behind the layer
    assert backward_and_forward <= 0.03 * (3 * TRAINING_BATCHES + VALIDATION_BATCHES) * BATCH


def test_of_a_batch_in_another_form():
    seen, module = [], Module()
    options = {"images": 3, "read": lambda batch: batch["image"], "method": partial(EigenCAM, normalize="max")}
    maps = ValidationMaps(lambda trainer, *given: seen.append(given), "last", "net", **options)
    trainer = SimpleNamespace(sanity_checking=False, is_global_zero=True)
    for index, dataloader in ((0, 0), (1, 0), (0, 1)):
        maps(trainer, module, None, {"image": images(count=4)}, index, dataloader)
    ((x, of_x),) = seen
    assert len(x) == 3
    expected = EigenCAM(module.net, "last", normalize="max")(images(count=4)[:3], as_tensor=True)
    torch.testing.assert_close(of_x, expected)


def test_a_name_that_is_none():
    with pytest.raises(AttributeError, match="backbone"):
        trained(network="backbone")


@pytest.mark.parametrize("library", ["lightning.pytorch", "pytorch_lightning"])
def test_the_callback_of_the_library(library, monkeypatch):
    """LambdaCallback takes the hooks by their names, in every version since 1.0."""
    for name in ("lightning", "lightning.pytorch", "lightning.pytorch.callbacks", "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, name, None)
    parts = library.split(".")
    names = [".".join(parts[: index + 1]) for index in range(len(parts))] + [f"{library}.callbacks"]
    for name in names:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules[names[-1]].LambdaCallback = SimpleNamespace
    callback = cam_callback(print, "layer4", images=2)
    assert vars(callback).keys() == {"on_validation_batch_end"}
    assert callback.on_validation_batch_end.use is builtins.print
    assert callback.on_validation_batch_end.target_layers == "layer4"
    assert callback.on_validation_batch_end.images == 2


def test_without_the_library(monkeypatch):
    for name in ("lightning", "lightning.pytorch", "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"this needs lightning, which is not installed: .*'grad-cam\[lightning\]'"):
        cam_callback(print)
