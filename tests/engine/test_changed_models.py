"""What is known of a model is noticed when it changes between two calls of one CAM."""

import numpy as np
import pytest
import torch
from nets import convolutional, images
from torch import nn
from torch.utils.checkpoint import checkpoint

from pytorch_grad_cam import EigenCAM, GradCAM


class Noise(nn.Module):
    """Random numbers in training mode, and a buffer that counts its runs."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("runs", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.runs += 1
        return x + torch.randn_like(x) if self.training else x


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.behind = convolutional(), nn.Sequential()
        self.checkpointed = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.net[:4](x)
        if self.checkpointed:
            return checkpoint(self.net[4:], self.behind(features), use_reentrant=True)
        return self.net[4:](self.behind(features))


def add_a_module_in_training_mode(model):
    model.behind.add_module("noise", Noise().train())


def replace_a_module(model):
    model.behind.add_module("noise", Noise().train())
    model.net[5] = nn.Sequential(nn.Flatten(), Noise().train())


def remove_a_module(model):
    del model.net[7]  # the tanh


def switch_to_training_mode(model):
    model.train()


def switch_one_module_to_training_mode(model):
    model.net[2].train()


def freeze_parameters(model):
    model.requires_grad_(False)


def unfreeze_a_parameter(model):
    model.net[8].weight.requires_grad_(True)


def replace_a_parameter(model):
    model.net[8].weight = nn.Parameter(model.net[8].weight.detach().flip(0))


def replace_a_parameter_by_one_of_inference_mode(model):
    with torch.inference_mode():
        model.net[8].weight = nn.Parameter(model.net[8].weight.flip(0))


def register_a_buffer_and_write_it(model):
    class Counting(nn.Identity):
        def forward(self, x):
            self.runs += 1
            return x

    model.behind.add_module("counting", Counting())
    model.behind.counting.register_buffer("runs", torch.zeros(1))


def register_a_parameter(model):
    model.net.register_parameter("spare", nn.Parameter(torch.zeros(2)))


def change_the_precision(model):
    model.double()


def switch_checkpoints_on(model):
    model.checkpointed = True


CHANGES = [
    add_a_module_in_training_mode,
    replace_a_module,
    remove_a_module,
    switch_to_training_mode,
    switch_one_module_to_training_mode,
    freeze_parameters,
    unfreeze_a_parameter,
    replace_a_parameter,
    replace_a_parameter_by_one_of_inference_mode,
    register_a_buffer_and_write_it,
    register_a_parameter,
    change_the_precision,
    switch_checkpoints_on,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("kind", [GradCAM, EigenCAM], ids=lambda kind: kind.__name__)
def test_a_change_between_two_calls_is_noticed(kind, change):
    """The maps are those of a CAM that is made after the change, and the change is still there after the call."""
    torch.manual_seed(0)
    model, x = Model().eval(), images()
    model.net[8].weight.requires_grad_(False)
    layer = model.net.last
    cam = kind(model, layer)
    cam(x, 3)
    change(model)
    x = x.to(model.net[0].weight.dtype)
    with torch.inference_mode():  # where the values of all tensors may be copied
        values = {name: value.clone() for name, value in model.state_dict().items()}
    before, random_state = flags_of(model), torch.get_rng_state()
    found = cam(x, 3)
    assert flags_of(model) == before
    assert all(torch.equal(value, values[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)
    np.testing.assert_array_equal(found, kind(model, layer)(x, 3))


def flags_of(model: nn.Module) -> list:
    """The modules with their flags and hooks, and the tensors; not the number of writes into a buffer."""
    modules = [(module, module.training, list(module._forward_hooks.values())) for module in model.modules()]
    tensors = [(id(tensor), tensor.requires_grad) for tensor in [*model.parameters(), *model.buffers()]]
    return [modules, tensors]


def test_nothing_is_walked_while_nothing_changes(monkeypatch):
    walks = []
    modules = nn.Module.modules
    monkeypatch.setattr(nn.Module, "modules", lambda model: walks.append(model) or modules(model))
    with GradCAM(Model().eval(), "net.last") as cam:
        cam(images(), 3)
        walks.clear()
        cam(images(), 3)
        assert not walks
        cam.model.net.add_module("another", nn.Identity())
        cam(images(), 3)
        assert walks


def test_a_write_in_the_fifth_call_is_undone():
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.calls = convolutional(), 0
            self.register_buffer("seen", torch.zeros(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            if self.calls == 5:
                self.seen += 1
            return self.net(x)

    model = Late().eval()
    with GradCAM(model, "net.last", check_place=False) as cam:
        for _ in range(6):
            cam(images(), 3)
            assert not model.seen.any()
    assert model.calls == 6
