"""Small seeded networks whose scores lie on maps of several scales, and networks that give a map."""

import torch
import torch.nn.functional as F
from torch import nn

SIZE = (64, 64)
# Boxes in the middle of the three levels' grids of 16 x 16, 8 x 8 and 4 x 4, so that 3 x 3 cells of each are read.
BOXES = (5 * 16 + 5, 256 + 3 * 8 + 3, 256 + 64 + 1 * 4 + 1)
CLASSES = 5


def block(read: int, returned: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(read, returned, 3, stride, 1), nn.ReLU())


class Detector(nn.Module):
    """Scores (N, 336, 5) of boxes on three levels, each a `neck` beside the backbone, put together by cat."""

    has_necks = True

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.stem = block(3, 8, 2)
        self.stages = nn.ModuleList(block(8, 8, 2) for _ in BOXES)
        if self.has_necks:
            self.necks = nn.ModuleList(block(8, 8) for _ in BOXES)
        self.heads = nn.ModuleList(nn.Conv2d(8, CLASSES, 3, padding=1) for _ in BOXES)
        for head in self.heads:
            nn.init.uniform_(head.weight)  # so that what is there speaks for the class, and no map is blank

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        scores = []
        for level, (stage, head) in enumerate(zip(self.stages, self.heads, strict=True)):
            x = stage(x)
            seen = self.necks[level](x) if self.has_necks else x
            scores.append(head(seen).flatten(2).mT)
        return torch.cat(scores, dim=1)


class SingleShot(Detector):
    """Each level is made of the one before: a box of the last has a gradient on all."""

    has_necks = False


class Pooling(nn.Module):
    """Eight boxes of two levels: what each sees is put into one table, then read by one linear layer.

    how: by "slice" or "index" in place, or by "index_put".
    """

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.stem, self.how = block(3, 8, 2), how
        self.stages = nn.ModuleList(block(8, 8, 2) for _ in range(2))
        self.necks = nn.ModuleList(block(8, 8) for _ in range(2))
        self.head = nn.Linear(8 * 9, 4)
        nn.init.uniform_(self.head.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        table = x.new_zeros(len(x), 8, 8 * 9)
        for level, (stage, neck) in enumerate(zip(self.stages, self.necks, strict=True)):
            x = stage(x)
            level_map = neck(x)
            crops = [level_map[:, :, place : place + 4, place : place + 4] for place in range(4)]
            seen = torch.stack([F.adaptive_avg_pool2d(crop, 3).flatten(1) for crop in crops], dim=1)
            boxes = torch.arange(level, 8, 2)
            if self.how == "slice":
                table[:, level::2] = seen
            elif self.how == "index":
                table[:, boxes] = seen
            else:
                table = table.index_put((torch.arange(len(x))[:, None], boxes[None]), seen)
        return self.head(table)


class UNet(nn.Module):
    """Scores (N, 4, H, W): three levels down to a bottleneck of an eighth, and up again beside the encoder's maps."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.down1, self.down2 = block(3, 6), block(6, 8, 2), block(8, 10, 2)
        self.bottleneck = block(10, 12, 2)
        self.up2, self.up1, self.up0 = block(22, 8), block(16, 8), block(14, 8)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.stem(x)
        second = self.down1(first)
        third = self.down2(second)
        y = self.bottleneck(third)
        for up, beside in ((self.up2, third), (self.up1, second), (self.up0, first)):
            y = up(torch.cat([F.interpolate(y, size=beside.shape[2:]), beside], dim=1))
        return self.head(y)


class PyramidPooling(nn.Module):
    """A PSPNet: pooled to 1, 2, 3 and 6 cells, and enlarged beside the encoder's map."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(block(3, 6, 2), block(6, 8, 2))
        self.pools = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(cells), nn.Conv2d(8, 4, 1), nn.ReLU()) for cells in (1, 2, 3, 6)
        )
        self.fuse, self.head = block(24, 8), nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = self.encoder(x)
        pooled = [F.interpolate(pool(seen), size=seen.shape[2:], mode="bilinear") for pool in self.pools]
        return F.interpolate(self.head(self.fuse(torch.cat([seen, *pooled], dim=1))), size=x.shape[2:])


class MaskQueries(nn.Module):
    """A MaskFormer: queries look at the encoder's last map by two attentions; their masks are read on finer pixels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fine, self.coarse = block(3, 8, 2), block(8, 8, 2)
        self.lateral, self.top, self.projection = (nn.Conv2d(8, 8, 1) for _ in range(3))
        self.queries, self.mask, self.smooth = nn.Parameter(torch.randn(4, 8)), nn.Linear(8, 8), block(8, 8)
        self.keys, self.values = (nn.ModuleList(nn.Linear(8, 8) for _ in range(2)) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = self.fine(x)
        coarse = self.coarse(fine)
        pixels = self.lateral(fine) + F.interpolate(self.top(coarse), size=fine.shape[2:])
        cells = self.projection(coarse).flatten(2).mT
        queries = self.queries.expand(len(x), -1, -1)
        for key, value in zip(self.keys, self.values, strict=True):
            queries = queries + (queries @ key(cells).mT).softmax(-1) @ value(cells)
        return F.interpolate(torch.einsum("nqc,nchw->nqhw", self.mask(queries), self.smooth(pixels)), size=x.shape[2:])


class FullyConvolutional(nn.Module):
    """An FCN: a dict of the scores and of those of an auxiliary head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.early, self.late = block(3, 6, 2), block(6, 8, 2)
        self.classifier = nn.Sequential(block(8, 8), nn.Conv2d(8, 4, 1))
        self.auxiliary = nn.Sequential(block(6, 4), nn.Conv2d(4, 4, 1))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        early = self.early(x)
        heads = {"out": self.classifier(self.late(early)), "aux": self.auxiliary(early)}
        return {key: F.interpolate(scores, size=x.shape[2:], mode="bilinear") for key, scores in heads.items()}


class TwoBranches(nn.Module):
    """Classes 0 to 2 read the branch `coarse`, whose scores are higher, 3 and 4 the branch `fine`."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.coarse, self.fine = block(3, 6, 2), block(6, 8, 2), block(6, 8)
        self.coarse_head, self.fine_head = nn.Linear(8, 3), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        of_coarse = self.coarse_head(self.coarse(x).mean((2, 3))) + 100
        return torch.cat([of_coarse, self.fine_head(self.fine(x).mean((2, 3)))], dim=1)
