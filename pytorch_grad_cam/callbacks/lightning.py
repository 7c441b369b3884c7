"""Maps during the validation of a Lightning module: `pip install 'grad-cam[lightning]'`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from pytorch_grad_cam.engine.optional_packages import needing
from pytorch_grad_cam.engine.targets import Targets
from pytorch_grad_cam.grad_cam import GradCAM

Use = Callable[[Any, torch.Tensor, torch.Tensor], object]


def first_entry(batch: Any) -> Any:
    """The first entry of a tuple or list, which is the images as a rule; another batch itself."""
    return batch[0] if isinstance(batch, tuple | list) else batch


class ValidationMaps:
    """In each validation epoch the maps of the same images: how what a network looks at changes while it learns.

    Called as a callback's `on_validation_batch_end` is, of PyTorch Lightning and of what imitates it.

    use: called with the trainer, the images (n, C, *spatial) and their maps (n, *spatial), on the module's device, for
    example to hand them to a logger. target_layers: modules of the network or their names in it; None is found.
    network: the name of the network within the module; "" is the module itself, with its `forward`. images: how many of
    the first validation batch. read: from a batch to the images. targets: what to explain of each, see `BaseCAM`; None
    is its highest class, which changes while the network learns. method: a CAM class, or a `functools.partial` of one
    with options.

    Only the first process of several makes maps; the sanity check before the training makes none. The modes, the
    gradients and the random state of the training are as without them.

    Raises AttributeError for a network that the module does not have, and what `BaseCAM` raises.
    Cost: one forward of these images, a validation epoch, and what the method adds (GradCAM: one backward of the part
    behind the layer); in the first epoch the check that `check_place` is, a forward of two changed images.
    """

    def __init__(
        self,
        use: Use,
        target_layers: nn.Module | str | Sequence[nn.Module | str] | None = None,
        network: str = "",
        *,
        images: int = 8,
        read: Callable[[Any], torch.Tensor] = first_entry,
        targets: Targets = None,
        method: Callable[..., Any] = GradCAM,
    ) -> None:
        self.use, self.target_layers, self.network = use, target_layers, network
        self.images, self.read, self.targets, self.method = images, read, targets, method
        self._cam: Any = None

    def __call__(
        self, trainer: Any, pl_module: nn.Module, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Behind the first batch of a validation epoch the maps are made and handed on."""
        if batch_idx or dataloader_idx or trainer.sanity_checking or not trainer.is_global_zero:
            return
        if self._cam is None:
            self._cam = self.method(pl_module.get_submodule(self.network), self.target_layers)
        images = self.read(batch)[: self.images]
        self.use(trainer, images, self._cam(images, self.targets, as_tensor=True))


def cam_callback(
    use: Use, target_layers: nn.Module | str | Sequence[nn.Module | str] | None = None, **options: Any
) -> Any:
    """A Lightning callback with the maps of each validation epoch; arguments and cost are those of `ValidationMaps`.

    Raises ImportError without Lightning.
    """
    return _lambda_callback()(on_validation_batch_end=ValidationMaps(use, target_layers, **options))


def _lambda_callback() -> Any:
    """Lightning's callback of functions, by either of the names that Lightning is installed by."""
    try:
        from lightning.pytorch.callbacks import LambdaCallback
    except ModuleNotFoundError:
        with needing("lightning", "lightning"):
            from pytorch_lightning.callbacks import LambdaCallback
    return LambdaCallback
