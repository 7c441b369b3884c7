"""A small transformer whose tokens lie as real ones do: extra ones anywhere, merged, sorted, in windows, transposed."""

from collections.abc import Sequence

import torch
from nets import CLASSES, Residual
from torch import nn

DIM = 10


class Tokens(nn.Module):
    """Patches of 4 x 4 pixels among extra tokens, two blocks with attention; `norms.0` and `norms.1` give the tokens.

    places: where in the sequence the extra tokens stand. order: the axes of the sequence. what: done to the tokens
    (N, T, C) in front of the second block.
    """

    def __init__(self, places: Sequence[int] = (), order: str = "NTC", what=None, read=None, rank: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        convolution = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[rank]
        self.patch, self.places, self.order, self.what = convolution(3, DIM, 4, 4), list(places), order, what
        self.read = self.places[:1] if read is None else read
        self.extra = nn.Parameter(torch.randn(1, len(self.places), DIM))
        self.befores = nn.ModuleList(Residual(DIM) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(DIM) for _ in range(2))
        self.shown = nn.ModuleList(nn.Identity() for _ in range(2))
        self.attentions = nn.ModuleList(nn.MultiheadAttention(DIM, 2, batch_first=True) for _ in range(2))
        self.head = nn.Linear(DIM, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        cells = self.patch(x).flatten(2).mT
        tokens = cells.new_zeros(len(x), cells.shape[1] + len(self.places), DIM)
        of_image = [place for place in range(tokens.shape[1]) if place not in self.places]
        tokens[:, self.places], tokens[:, of_image] = self.extra.to(cells), cells
        for number in range(2):
            if number == 1 and self.what is not None:
                tokens = self.what(tokens)
            tokens = self.befores[number](tokens)
            normed = self.norms[number](tokens)
            axes = [self.order.index(axis) for axis in "NTC"]
            normed = self.shown[number](normed.permute(*("NTC".index(axis) for axis in self.order))).permute(*axes)
            tokens = tokens + self.attentions[number](normed, normed, normed, need_weights=False)[0]
        read = tokens[:, self.read] if self.read else tokens
        return self.head(read.mean(1))
