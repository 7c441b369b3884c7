"""Attention that can be differentiated twice."""

from functools import partial

from torch.backends import cuda

from pytorch_grad_cam.engine.threads import SharedChange

# PyTorch's choice of attention kernels is one for the process, on every device: (how to read it, how to set it).
_KERNELS = {
    "flash": (cuda.flash_sdp_enabled, cuda.enable_flash_sdp),
    "memory-efficient": (cuda.mem_efficient_sdp_enabled, cuda.enable_mem_efficient_sdp),
    "cuDNN": (cuda.cudnn_sdp_enabled, cuda.enable_cudnn_sdp),
    "plain": (cuda.math_sdp_enabled, cuda.enable_math_sdp),
}


_before: dict[str, bool] = {}


def _choose_plain() -> None:
    _before.update({name: enabled() for name, (enabled, _) in _KERNELS.items()})
    _choose(dict.fromkeys(_KERNELS, False) | {"plain": True})


def _choose(enabled: dict[str, bool]) -> None:
    for name, (_, enable) in _KERNELS.items():
        enable(enabled[name])


# Within: PyTorch's attention in plain operations; its fused kernels have no second derivative.
twice_differentiable_attention = SharedChange(make=_choose_plain, undo=partial(_choose, _before))
