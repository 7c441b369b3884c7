"""Images with noise, and gradients at a layer where the model is shown other images."""

from collections.abc import Iterator
from typing import cast

import torch

from pytorch_grad_cam.engine.capture import gradients_of_list
from pytorch_grad_cam.engine.inputs import with_image
from pytorch_grad_cam.engine.layer_run import LayerRun
from pytorch_grad_cam.engine.rectifiers import RectifiedCapture, known_rectifiers
from pytorch_grad_cam.engine.targets import TargetLists
from pytorch_grad_cam.engine.trees import AsMap, read_as_map


def gradients_of(run: LayerRun, images: torch.Tensor, target_lists: TargetLists) -> torch.Tensor:
    """For K target lists the gradients (K, N, C, *grid) at the run's layer, as it runs with images (N, C, *spatial).

    Cost: one forward, and K backwards from the score to the layer.
    """
    call, found = run.call, []
    how = call.model, [run.layer], True, True, call.spatial_from
    with RectifiedCapture(known_rectifiers(call.model), None, *how) as capture:
        inputs = images if call.inputs is call.image else with_image(call.inputs, images, call.spatial_from)
        scores = call.output_transform(capture.run(inputs))
        for position in range(len(target_lists)):
            gradient = gradients_of_list(capture, scores, target_lists, position)[run.call_index]
            found.append(read_as_map(cast(AsMap, run.as_map), True, gradient))
    return torch.stack(found)


def noisy(images: torch.Tensor, std: float, samples: int, seed: int) -> Iterator[torch.Tensor]:
    """Images or masks (N, ...) with Gaussian noise, the same for all N, so many times."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(samples):
        noise = torch.randn(images.shape[1:], generator=generator, dtype=torch.float64)
        yield images + std * noise.to(images)
