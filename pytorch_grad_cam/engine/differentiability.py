"""Which maps can be differentiated."""

from typing import Any


def check_differentiable(cam: Any, detach: bool) -> None:
    """Raise ValueError where maps in the autograd graph are asked of a method whose weights are computed outside of it.

    Their gradient would be that of the activations alone: some number, and not the map's derivative.
    """
    if not (detach or cam.is_differentiable):
        raise ValueError(
            f"{type(cam).__name__}(detach=False): its maps cannot be differentiated, take GradCAM, HiResCAM or LayerCAM"
        )
