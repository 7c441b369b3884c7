"""What FullGrad keeps of each bias: its contribution to the score, to be rescaled (arXiv:1905.00780, section 4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

from pytorch_grad_cam.engine.bias_gradients import BiasGradients
from pytorch_grad_cam.engine.maps import full_precision, over_positions

# In bytes: of a smaller gradient, the work below takes a GPU no longer than its launches take the host, so that such
# gradients wait for others of their shape. ResNet-50 has 53 with 42 MB in all for one image, the largest has 3 MB.
_SMALL = 4 * 2**20


class Contributions(NamedTuple):
    """Of k contributions $g_c b_c$ to a score, of one shape, what their rescaling needs; not the gradients.

    bias: (k, C), the magnitudes. lowest, highest: (k, N, C), of the gradients' magnitudes over the positions. summed:
    (k, N, *spatial), the contributions' magnitudes summed over the channels.
    """

    bias: torch.Tensor
    lowest: torch.Tensor
    highest: torch.Tensor
    summed: torch.Tensor

    @classmethod
    def of(cls, biases: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]) -> Contributions:
        """biases: k of (C,). gradients: k of (N, C, *spatial), of the score where the biases were added."""
        stacked = torch.stack([*gradients]) if len(gradients) > 1 else gradients[0][None]
        magnitude = full_precision(stacked).abs().unsqueeze(3).flatten(3)
        bias = full_precision(torch.stack([*biases])).to(magnitude).abs()
        lowest, highest = magnitude.aminmax(dim=3)
        summed = bias[:, None, None] @ magnitude
        return cls(bias, lowest, highest, summed.reshape(*stacked.shape[:2], *stacked.shape[3:]))

    def rescaled(self) -> torch.Tensor:
        r"""$\psi$ not resized: |contribution| (N, C, *spatial), each sample's to [0, 1], summed over the channels.

        Returns (N, k, *spatial), zeros where a contribution is the same everywhere.
        """
        least, most = (self.lowest * self.bias[:, None]).amin(2), (self.highest * self.bias[:, None]).amax(2)
        span = most - least
        above = self.summed - over_positions(self.bias.shape[1] * least, self.summed)
        return (above / over_positions(span.masked_fill(span == 0, torch.inf), self.summed)).movedim(0, 1)


class BiasContributions(BiasGradients):
    """Of each bias its contribution to the score, as much of it as the rescaling needs."""

    def contribution(self, bias: torch.Tensor, gradient: torch.Tensor) -> Any:
        """The bias and the gradient where that is small, else `Contributions`."""
        is_small = gradient.numel() * gradient.element_size() <= _SMALL
        return (bias, gradient) if is_small else Contributions.of([bias], [gradient])


def by_shape(kept: Sequence[tuple[int, Any]]) -> Iterator[tuple[list[int], Contributions]]:
    """What `BiasContributions` kept of each bias, by its number: the numbers and contributions of each shape."""
    groups: dict[Any, tuple[list[int], list[Any]]] = {}
    for number, each in kept:
        shape = each.lowest.shape + each.summed.shape if isinstance(each, Contributions) else each[1].shape
        numbers, alike = groups.setdefault((type(each), shape), ([], []))
        numbers.append(number)
        alike.append(each)
    for numbers, alike in groups.values():
        parts = zip(*alike, strict=True)
        are_small = not isinstance(alike[0], Contributions)
        yield numbers, Contributions.of(*parts) if are_small else Contributions(*map(torch.cat, parts))
