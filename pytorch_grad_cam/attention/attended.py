"""What a method on attention makes its map of: the weights and gradients of one target list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from pytorch_grad_cam.attention.attentions import Attention
from pytorch_grad_cam.attention.windows import Places


class AttendedBlock(NamedTuple):
    """One attention of a block, for N images, or N times as many windows: B.

    weights: (B, heads, T, T). gradients: of the score with respect to them; None for methods without gradients.
    attention: as the model computed it. of_output: the score's gradient with respect to `attention.output`, where the
    method asks for it. places: where windows lie; None where T are all the tokens.
    """

    weights: torch.Tensor
    gradients: Any
    attention: Attention
    of_output: Any
    places: Places | None

    def of_heads(self, part: torch.Tensor) -> torch.Tensor:
        """What the model holds of the attention, or a gradient of it, as (B, heads, T, S)."""
        windows = part if self.places is None else self.places.windows_first(part)
        return by_image(windows, len(self.weights))

    def with_heads_of(self, other: AttendedBlock) -> AttendedBlock:
        """The attention whose heads are both those of this one and of another one, on the same tokens."""

        def joined(own: torch.Tensor | None, others: torch.Tensor | None) -> torch.Tensor | None:
            return None if own is None or others is None else torch.cat([self.of_heads(own), other.of_heads(others)], 1)

        gradients = None if self.gradients is None else torch.cat([self.gradients, other.gradients], 1)
        return AttendedBlock(
            torch.cat([self.weights, other.weights], 1),
            gradients,
            Attention(*map(joined, self.attention, other.attention)),  # type: ignore[arg-type]
            joined(self.of_output, other.of_output),
            None if self.places is None else self.places._replace(axis=0),
        )

    def at_tokens(self, of_keys: torch.Tensor, tokens: int) -> torch.Tensor:
        """What was found for the keys (B, T), at the tokens of the images: (N, tokens)."""
        return of_keys if self.places is None else self.places.put_back(of_keys, tokens)


class Attended(NamedTuple):
    """The attentions of the blocks, the first first, and `reads`: each token's share (tokens,) in what the score reads
    of the last block's output, one at the class token, or the same at all. behind: the attentions that the model
    computes behind the last block, where the method asks for them.
    """

    blocks: Sequence[AttendedBlock]
    reads: torch.Tensor
    behind: Sequence[AttendedBlock] = ()

    @property
    def tokens(self) -> int:
        """How many there are, with those that are no cells of the image."""
        return len(self.reads)

    def read_rows(self, of_queries: torch.Tensor) -> torch.Tensor:
        """The row of the token that the score reads, or the mean of the rows: (..., T, S) to (..., S)."""
        return torch.einsum("q,...qk->...k", self.reads.to(of_queries), of_queries)


def by_image(tensor: torch.Tensor, images: int) -> torch.Tensor:
    """What a model holds as (N * heads, T, S), or with several axes for the heads, as (B, heads, T, S)."""
    if tensor.ndim == 3:
        return torch.unflatten(tensor, 0, (images, -1))
    return torch.flatten(tensor, 1, -3)
