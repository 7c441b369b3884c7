"""Models that record what their modules return, by forward hooks of their own, and read the records in their head."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from nets import images
from torch import nn

from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.activations_and_gradients import ActivationsAndGradients
from pytorch_grad_cam.engine.capture import Capture
from pytorch_grad_cam.engine.inputs import apply
from pytorch_grad_cam.engine.trees import floating_tensors
from pytorch_grad_cam.engine.undisturbed import undisturbed


class RecordsByHooks(nn.Module):
    """Installs recording hooks at its first forward, as transformers does; the head reads what they recorded."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)
        self.head = nn.Linear(8, 5)
        self.installed = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.installed:
            for module in (self.one, self.two):
                module.register_forward_hook(lambda module, inputs, output: self.recorded.append(output))
            self.installed = True
        self.recorded: list[torch.Tensor] = []
        self.two(self.one(x).tanh())
        states, self.recorded = self.recorded, []
        return self.head(torch.cat([state.square().mean((2, 3)) for state in states], dim=1))


def test_fresh_is_used():
    fresh, used = RecordsByHooks(), RecordsByHooks()
    used(images())
    for layer in ("one", "two"):
        maps = GradCAM(used, layer)(images(), 1)
        assert abs(maps - GradCAM(RecordsByHooks(), layer)(images(), 1)).max() < 1e-6
        assert abs(maps - GradCAM(fresh, layer)(images(), 1)).max() < 1e-6


def test_hooks_of_1_x():
    fresh, used = RecordsByHooks(), RecordsByHooks()
    used(images())
    gradients = []
    for model in (fresh, used):
        hooks = ActivationsAndGradients(model.requires_grad_(False), [model.one], None)
        hooks(images())[:, 1].sum().backward()
        gradients += hooks.gradients
    torch.testing.assert_close(*gradients)


def segformer(transformers: Any) -> tuple[nn.Module, Any]:
    config = transformers.SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 16], patch_sizes=[3, 3], strides=[4, 2],
        num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=8,
    )  # fmt: skip
    return transformers.SegformerForSemanticSegmentation(config), torch.randn(1, 3, 32, 32)


def dpt(transformers: Any) -> tuple[nn.Module, Any]:
    config = transformers.DPTConfig(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[4, 4, 8, 8], fusion_hidden_size=8, is_hybrid=False,
    )  # fmt: skip
    return transformers.DPTForSemanticSegmentation(config), torch.randn(1, 3, 32, 32)


def upernet_of_swin(transformers: Any) -> tuple[nn.Module, Any]:
    swin = transformers.SwinConfig(
        image_size=32, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4,
        out_features=["stage1", "stage2"],
    )  # fmt: skip
    config = transformers.UperNetConfig(
        backbone_config=swin, hidden_size=8, pool_scales=[1, 2], use_auxiliary_head=False, num_labels=3
    )
    return transformers.UperNetForSemanticSegmentation(config), torch.randn(1, 3, 32, 32)


def clipseg(transformers: Any) -> tuple[nn.Module, Any]:
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.CLIPSegConfig(
        text_config={**size, "vocab_size": 20, "max_position_embeddings": 8, "eos_token_id": 2},
        vision_config={**size, "image_size": 32, "patch_size": 8}, projection_dim=16,
        extract_layers=[0, 1], reduce_dim=8, decoder_num_attention_heads=2, decoder_intermediate_size=8,
    )  # fmt: skip
    pixels = torch.randn(1, 3, 32, 32)
    return transformers.CLIPSegForImageSegmentation(config), {
        "input_ids": torch.tensor([[3, 4, 2]]),
        "pixel_values": pixels,
    }


def llava(transformers: Any) -> tuple[nn.Module, Any]:
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**size, image_size=32, patch_size=8),
        text_config=transformers.LlamaConfig(**size, vocab_size=30, num_key_value_heads=2),
        image_token_id=29, vision_feature_layer=[-3, -2],
    )  # fmt: skip
    tokens = torch.tensor([[3, *[29] * 16, 5]])
    return transformers.LlavaForConditionalGeneration(config), {
        "input_ids": tokens,
        "pixel_values": torch.randn(1, 3, 32, 32),
    }


def vit(transformers: Any, **recorded: bool) -> tuple[nn.Module, Any]:
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8,
        attn_implementation="eager",
    )  # fmt: skip
    return transformers.ViTForImageClassification(config), {"pixel_values": torch.randn(1, 3, 32, 32), **recorded}


def everything_returned(outputs: Any) -> torch.Tensor:
    """A score of all tensors in an output, each with weights of its own."""
    tensors = floating_tensors(dict(outputs))
    weighted = [
        (tensor * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(index))).sum()
        for index, tensor in enumerate(tensors)
    ]
    return torch.stack(weighted).sum()


def gradients_by_capture(model: nn.Module, layer: nn.Module, inputs: Any) -> list[torch.Tensor]:
    with undisturbed(model), Capture(model, [layer], gradients=True) as capture:
        gradients, _ = capture.differentiate(everything_returned(capture.run(inputs)))
    return floating_tensors(gradients)


def gradients_by_hand(model: nn.Module, layer: nn.Module, inputs: Any) -> list[torch.Tensor]:
    """What the layer computes is exchanged for leaves, in its own `forward`, before any hook."""
    forward, leaves = layer.forward, []

    def forward_to_leaves(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        torch.set_grad_enabled(True)  # CLIPSeg runs its encoder under no_grad
        parts = output if isinstance(output, tuple) else (output,)
        parts = tuple(part.detach().requires_grad_() if isinstance(part, torch.Tensor) else part for part in parts)
        leaves.extend(floating_tensors(parts))
        return parts if isinstance(output, tuple) else parts[0]

    layer.forward = forward_to_leaves
    try:
        with torch.enable_grad():
            score = everything_returned(apply(model, inputs))
    finally:
        del layer.forward
    gradients = torch.autograd.grad(score, leaves, allow_unused=True)
    pairs = zip(gradients, leaves, strict=True)
    return [torch.zeros_like(leaf) if gradient is None else gradient for gradient, leaf in pairs]


RECORDERS: dict[str, Callable[[Any], tuple[nn.Module, Any]]] = {
    "SegFormer": segformer,
    "DPT": dpt,
    "UPerNet of Swin": upernet_of_swin,
    "CLIPSeg": clipseg,
    "LLaVA": llava,
    "hidden states": partial(vit, output_hidden_states=True),
    "attentions": partial(vit, output_attentions=True),
    "both": partial(vit, output_hidden_states=True, output_attentions=True),
}


@pytest.mark.slow
@pytest.mark.parametrize("recorder", RECORDERS.values(), ids=RECORDERS)
def test_recorders_of_transformers(recorder):
    transformers = pytest.importorskip("transformers", minversion="5")

    def made() -> tuple[nn.Module, Any]:
        torch.manual_seed(0)
        model, inputs = recorder(transformers)
        return model.eval(), inputs

    used, inputs = made()
    apply(used, inputs)
    hooked = [name for name, module in used.named_modules() if module._forward_hooks]
    assert hooked, "transformers records by hooks no longer: the test needs another model"
    for name in hooked:
        fresh, _ = made()
        layer = used.get_submodule(name)
        expected = gradients_by_hand(used, layer, inputs)
        assert any(gradient.any() for gradient in expected)
        for found in (
            gradients_by_capture(used, layer, inputs),
            gradients_by_capture(fresh, fresh.get_submodule(name), inputs),
        ):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5, msg=partial("{}: {}".format, name))
