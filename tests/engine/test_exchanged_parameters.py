"""Models whose parameters others exchange while they run: offloaded and sharded ones."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed.fsdp
from nets import convolutional, images
from torch import nn

from pytorch_grad_cam import AblationCAM, EigenCAM, GradCAM, ScoreCAM
from pytorch_grad_cam.locate import locate
from pytorch_grad_cam.registration import registration_of

METHODS = [GradCAM, EigenCAM, ScoreCAM, AblationCAM]


def offloaded(model: nn.Module, device: int | str | torch.device | None) -> nn.Module:
    """As accelerate does it: parameters on 'meta', which are fetched for each run of their module."""
    for module in [module for module in model.modules() if module._parameters]:
        values = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}

        def set_all(module, values, on_meta):
            for name, value in values.items():
                required = module._parameters[name].requires_grad
                new = value.to("meta") if on_meta else value.clone()
                module._parameters[name] = nn.Parameter(new, requires_grad=required)

        def forward(*args, module=module, values=values, own=module.forward):
            set_all(module, values, on_meta=False)
            try:
                return own(*args)
            finally:
                set_all(module, values, on_meta=True)

        set_all(module, values, on_meta=True)
        module.forward = forward
        if device is not None:
            module._hf_hook = SimpleNamespace(execution_device=device)
    return model


def check_offloaded(model: nn.Module, plain: nn.Module, layer: str, methods: list) -> None:
    for name in (layer, None):
        for ours in methods:
            np.testing.assert_allclose(ours(model, name)(images(), 3), ours(plain, name)(images(), 3), atol=1e-5)
    assert locate(model, images()).name == locate(plain, images()).name
    layers = dict(model.named_modules())[layer], dict(plain.named_modules())[layer]
    assert registration_of(model, layers[0], images()) == registration_of(plain, layers[1], images())
    parameters = list(model.parameters())
    assert {parameter.device.type for parameter in parameters} == {"meta"}
    assert all(parameter.requires_grad for parameter in parameters), "as before the calls"


@pytest.mark.parametrize("device", [None, "cpu", torch.device("cpu")])
def test_offloaded_as_accelerate_does_it(device):
    check_offloaded(offloaded(convolutional(), device), convolutional(), "last", METHODS)


@pytest.mark.parametrize("ours", [GradCAM, EigenCAM])
def test_frozen_parameters_stay_frozen(ours):
    model = offloaded(convolutional(), "cpu")
    model.stem.requires_grad_(False)
    ours(model, "last")(images(), 3)
    assert [parameter.requires_grad for parameter in model.parameters()] == [False] * 2 + [True] * 6


@pytest.mark.slow
def test_offloaded_by_accelerate():
    accelerate = pytest.importorskip("accelerate")
    model = accelerate.cpu_offload(convolutional(), execution_device=torch.device("cpu"))
    check_offloaded(model, convolutional(), "last", METHODS)


@pytest.fixture
def one_process():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def sharded(mesh) -> nn.Module:
    from torch.distributed.fsdp import fully_shard

    model = convolutional().train()
    for name in ("stem", "conv", "head"):
        fully_shard(model.get_submodule(name), mesh=mesh)
    return fully_shard(model, mesh=mesh)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(torch.distributed.fsdp, "fully_shard"), reason="torch >= 2.6")
@pytest.mark.parametrize("ours", METHODS)
@pytest.mark.parametrize("steps_before", [0, 1])
def test_a_call_between_two_training_steps(one_process, ours, steps_before):
    from torch.distributed.device_mesh import init_device_mesh

    def after_training(between) -> list[torch.Tensor]:
        model = sharded(init_device_mesh("cpu", (1,)))
        optimiser = torch.optim.SGD(model.parameters(), 0.01)
        for step in range(3):
            if step == steps_before:
                between(model)
            optimiser.zero_grad()
            model(images()).square().sum().backward()
            assert all(parameter.grad is not None for parameter in model.parameters()), step
            optimiser.step()
        return [parameter.full_tensor() for parameter in model.parameters()]

    maps = []
    trained = after_training(lambda model: maps.append(ours(model, "last")(images(), 3)))
    torch.testing.assert_close(trained, after_training(lambda model: None))
    if not steps_before:
        np.testing.assert_allclose(maps[0], ours(convolutional(), "last")(images(), 3), atol=1e-5)
