"""A small vision transformer that computes its attention in every way that models do, and shows all of it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from nets import CLASSES, CONVOLUTIONS
from torch import nn

DIM, HEADS = 8, 2
HAS_GROUPS = "enable_gqa" in F.scaled_dot_product_attention.__doc__  # from torch 2.5 on
KINDS = ["eager", "fused", "module", "fast module", "einsum", "cast", "bmm", "one by one", *["grouped"] * HAS_GROUPS]


class Block(nn.Module):
    """x + attention, x + MLP. kind: how the attention is computed. Grouped: both heads share one key and value."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.norm1, self.norm2 = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.attention = nn.MultiheadAttention(DIM, HEADS, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(DIM, 2 * DIM), nn.GELU(), nn.Linear(2 * DIM, DIM))

    def forward(self, tokens: torch.Tensor, offset: Any = None, shown: list | None = None) -> torch.Tensor:
        normed = self.norm1(tokens)
        if "module" in self.kind:
            attended = self.attention(normed, normed, normed, need_weights=self.kind == "module")[0]
        else:
            attended = self.attention.out_proj(self.attend(normed, offset, shown))
        tokens = tokens + attended
        return tokens + self.mlp(self.norm2(tokens))

    def attend(self, tokens: torch.Tensor, offset: Any, shown: list | None) -> torch.Tensor:
        both = F.linear(tokens, self.attention.in_proj_weight, self.attention.in_proj_bias)
        query, key, value = (part.unflatten(2, (HEADS, -1)).transpose(1, 2) for part in both.chunk(3, dim=2))
        if self.kind == "grouped":
            key, value = key[:, :1], value[:, :1]
            output = F.scaled_dot_product_attention(query, key, value, enable_gqa=True)
        elif self.kind == "fused":
            output = F.scaled_dot_product_attention(query, key, value)
        elif self.kind == "einsum":
            scores = torch.einsum("nhqd,nhkd->nhqk", query, key) / query.shape[-1] ** 0.5
            output = torch.einsum("nhqk,nhkd->nhqd", torch.softmax(scores, dim=3), value)
        elif self.kind == "bmm":
            query, key, value = (part.flatten(0, 1) for part in (query, key, value))
            weights = torch.bmm(query / query.shape[-1] ** 0.5, key.transpose(1, 2)).softmax(dim=-1)
            output = torch.bmm(weights, value).unflatten(0, (-1, HEADS))
        elif self.kind == "one by one":
            heads = zip(*(part.unbind(1) for part in (query, key, value)), strict=True)
            output = torch.stack([(q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v for q, k, v in heads], dim=1)
        else:
            scores = query @ key.mT / query.shape[-1] ** 0.5
            weights = F.softmax(scores, dim=-1, dtype=torch.float64 if self.kind == "cast" else None)
            weights = F.dropout(weights, 0.1, self.training).to(value.dtype)
            weights = weights if offset is None else weights + offset
            output = weights @ value
            if shown is not None:
                shown.append(Shown(*(part[0] for part in (weights, scores, query, key, value, output)), output))
        return output.transpose(1, 2).flatten(2)


class Shown(NamedTuple):
    """Of one image the attention's parts, the heads first, and the tensor that its output's gradient is taken of."""

    weights: torch.Tensor
    scores: torch.Tensor
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    output: torch.Tensor
    source: torch.Tensor


class Attentive(nn.Module):
    """Patches of 4 pixels, a class token, blocks, a norm, a head that reads the class token or the mean of all tokens.

    kind: one of KINDS. pool: "token" or "mean".
    """

    def __init__(self, kind: str = "eager", pool: str = "token", depth: int = 3, rank: int = 2, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.pool = pool
        self.patch = CONVOLUTIONS[rank](3, DIM, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, DIM))
        self.blocks = nn.ModuleList(Block(kind) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(DIM), nn.Linear(DIM, CLASSES)
        for parameter in self.parameters():  # so that heads and tokens differ
            nn.init.normal_(parameter, std=0.5) if parameter.ndim > 1 else nn.init.normal_(parameter, 0.5, 0.5)
        self.eval()

    def forward(self, x: torch.Tensor, offsets: Sequence[Any] = (), shown: list | None = None) -> torch.Tensor:
        tokens = self.tokens(x)
        for number, block in enumerate(self.blocks):
            tokens = block(tokens, offsets[number] if offsets else None, shown)
        return self.score(tokens)

    def tokens(self, x: torch.Tensor) -> torch.Tensor:
        cells = self.patch(x).flatten(2).mT
        return torch.cat([self.token.expand(len(cells), -1, -1), cells], dim=1)

    def score(self, tokens: torch.Tensor) -> torch.Tensor:
        tokens = self.norm(tokens)
        return self.head(tokens[:, 0] if self.pool == "token" else tokens.mean(1))


class Windows(nn.Module):
    """A convolution and two blocks with attention within windows of 2 x 2 cells, the second one's shifted by a cell.

    Its maps are (N, H, W, C). padded: the windows are filled up with zeros where the cells do not suffice.
    """

    def __init__(self, kind: str = "fused", shifts: Sequence[int] = (0, 1)) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patch = nn.Conv2d(3, DIM, 4, 4)
        self.blocks = nn.ModuleList(Window(kind, shift) for shift in shifts)
        self.norm, self.head = nn.LayerNorm(DIM), nn.Linear(DIM, CLASSES)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        cells = self.patch(x).movedim(1, -1)
        for block in self.blocks:
            cells = block(cells)
        return self.head(self.norm(cells).mean((1, 2)))


class Window(Block):
    def __init__(self, kind: str, shift: int) -> None:
        super().__init__(kind)
        self.shift = shift

    def forward(self, cells: torch.Tensor) -> torch.Tensor:
        count, height, width, _ = cells.shape
        normed = F.pad(self.norm1(cells), (0, 0, 0, width % 2, 0, height % 2))
        rolled = normed.roll((-self.shift, -self.shift), (1, 2))
        rows, columns = rolled.shape[1] // 2, rolled.shape[2] // 2
        windows = rolled.reshape(count, rows, 2, columns, 2, DIM).transpose(2, 3).reshape(-1, 4, DIM)
        attended = self.attention.out_proj(self.attend(windows, None, None))
        back = attended.reshape(count, rows, columns, 2, 2, DIM).transpose(2, 3).reshape(rolled.shape)
        cells = cells + back.roll((self.shift, self.shift), (1, 2))[:, :height, :width]
        return cells + self.mlp(self.norm2(cells))


class Blocked(nn.Module):
    """A convolution, then two blocks on the cells of windows that the image is cut into once, put together behind them.

    kind: "apart": (N, windows, T, C), of squares of 2 x 2 cells, as Nest has them. "folded": (N * windows, T, C), each
    window of every second cell along both axes, as MobileViT has them. The map (N, C, H, W) is read by a convolution.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kind = kind
        self.patch = nn.Conv2d(3, DIM, 4, 4)
        self.blocks = nn.ModuleList(BlockOfWindows() for _ in range(2))
        self.join, self.head = nn.Conv2d(DIM, DIM, 1), nn.Linear(DIM, CLASSES)
        for parameter in self.parameters():
            nn.init.normal_(parameter, 0.1, 0.5)
        self.eval()

    def forward(self, x: torch.Tensor, shown: list | None = None) -> torch.Tensor:
        cells = self.patch(x)
        tokens = self.cut(cells)
        for block in self.blocks:
            tokens = block(tokens, shown=shown)
        return self.score(self.put_together(tokens, cells.shape))

    def score(self, maps: torch.Tensor) -> torch.Tensor:
        return self.head(self.join(maps).mean((2, 3)))

    def cut(self, cells: torch.Tensor) -> torch.Tensor:
        halves = cells.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # (N, C, rows, 2, columns, 2)
        if self.kind == "apart":
            return halves.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(1, 2)
        return halves.permute(0, 3, 5, 2, 4, 1).flatten(3, 4).flatten(0, 2)

    def put_together(self, tokens: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        images, _, height, width = shape
        if self.kind == "apart":
            halves = tokens.reshape(images, height // 2, width // 2, 2, 2, DIM).permute(0, 5, 1, 3, 2, 4)
        else:
            halves = tokens.reshape(images, 2, 2, height // 2, width // 2, DIM).permute(0, 5, 3, 1, 4, 2)
        return halves.reshape(shape)


class BlockOfWindows(nn.Module):
    """x + attention of (..., T, C), the axis of the heads in front of that of the windows."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)

    def forward(self, tokens: torch.Tensor, offset: Any = None, shown: list | None = None) -> torch.Tensor:
        heads = (part.unflatten(-1, (HEADS, -1)).movedim(-2, 1) for part in self.qkv(tokens).chunk(3, -1))
        query, key, value = heads
        weights = (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)
        attended = (weights if offset is None else weights + offset) @ value
        if shown is not None:
            shown.append((query, key, value, attended))
        return tokens + self.out(attended.movedim(1, -2).flatten(-2))
