"""Models that can be differentiated twice."""

from collections.abc import Iterator
from contextlib import contextmanager

from pytorch_grad_cam.engine.torch_quirks.attention import twice_differentiable_attention
from pytorch_grad_cam.engine.torch_quirks.hardsigmoid import TwiceDifferentiableHardsigmoid


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Within: what a model runs of PyTorch has the same values and gradients, and a second derivative."""
    with twice_differentiable_attention, TwiceDifferentiableHardsigmoid():
        yield
