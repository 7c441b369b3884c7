"""Small seeded networks whose scores lie on maps of several scales, and networks that give a map."""

from types import SimpleNamespace

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


class HighestOfLevels(nn.Module):
    """A detector as a classifier: each class's highest score over all places of three levels, (N, 5).

    The levels get one another by plain additions, as NanoDet's do: no module returns what all paths go through but the
    first stage. how: "amax", "max", "topk" of all places, or of the highest of each level ("levels"). broad: whether a
    place reads several cells of what a tower returns; of NanoDet's it reads one.
    """

    def __init__(self, how: str, broad: bool = True) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.stem, self.how = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU()), how
        self.stages = nn.ModuleList(nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU()) for _ in range(3))
        self.laterals = nn.ModuleList(nn.Conv2d(8, 8, 1) for _ in range(3))
        self.towers = nn.ModuleList(
            nn.Sequential(
                *(nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 8, 1), nn.ReLU()),
                *((nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU()) if broad else ()),
            )
            for _ in range(3)
        )
        self.heads = nn.ModuleList(nn.Conv2d(8, CLASSES, 1) for _ in range(3))
        for head in self.heads:
            nn.init.uniform_(head.weight)

    def of_levels(self, x: torch.Tensor) -> list[torch.Tensor]:
        levels, x = [], self.stem(x)
        for stage, lateral in zip(self.stages, self.laterals, strict=True):
            x = stage(x)
            levels.append(lateral(x))
        for level in (1, 0):
            levels[level] = levels[level] + F.interpolate(levels[level + 1], scale_factor=2)
        for level in (1, 2):
            levels[level] = levels[level] + F.avg_pool2d(levels[level - 1], 2)
        of_modules = zip(levels, self.towers, self.heads, strict=True)
        return [head(tower(values)).flatten(2) for values, tower, head in of_modules]

    def level_of(self, x: torch.Tensor, number: int) -> int:
        """The level that the class is highest on."""
        return int(torch.stack([scores[0, number].amax() for scores in self.of_levels(x)]).argmax())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        levels = self.of_levels(x)
        if self.how == "levels":
            return torch.stack([scores.amax(2) for scores in levels]).amax(0)
        together = torch.cat(levels, dim=2)
        if self.how == "topk":
            return together.topk(1, dim=2).values[..., 0]
        return together.amax(2) if self.how == "amax" else together.max(2).values


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


class Blobs(nn.Module):
    """Two levels of maps, of strides 8 and 16, that are bright where the image is; class 0 of a cell is what the 3 x 3
    cells around it are, class 1 the opposite. Boxes reach one cell and a half to each side of a cell's centre.
    """

    levels = (8, 16)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = block(3, 4)
        self.necks = nn.ModuleList(
            nn.Sequential(nn.AvgPool2d(stride), nn.Conv2d(4, 4, 1), nn.ReLU()) for stride in self.levels
        )
        self.heads = nn.ModuleList(nn.Conv2d(4, 2, 3, padding=1) for _ in self.levels)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, 0, 0.3)
        for head in self.heads:
            with torch.no_grad():
                head.weight[1] = -head.weight[0]
                head.bias[:] = torch.tensor([-1.0, 1.0])

    def maps(self, x: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """The levels' maps, and the logits (N, classes, cells) of all their cells."""
        x = self.stem(x)
        feats = [neck(x) for neck in self.necks]
        logits = [head(feat).flatten(2) for head, feat in zip(self.heads, feats, strict=True)]
        return feats, torch.cat(logits, dim=2)


REACH = 1.5  # of a blob's box, in cells
SQUARES = ((0, 0, 24, 24), (32, 32, 56, 56))
"""What `two_squares` has: alike, each 3 x 3 cells of the finer level."""


def two_squares() -> torch.Tensor:
    """An image (1, 3, 64, 64) of two objects that look alike."""
    image = torch.zeros(1, 3, 64, 64)
    for x0, y0, x1, y1 in SQUARES:
        image[..., y0:y1, x0:x1] = 1
    return image


class Cells(Blobs):
    """The form of ultralytics' YOLOs. bins: of the distances. sorted_best: of the `one2one` head of two the best 5."""

    def __init__(
        self,
        bins: int = 1,
        sorted_best: bool = False,
        with_masks: bool = False,
        angle: float | None = None,
        kpt_shape: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.bins, self.sorted_best, self.with_masks, self.angle = bins, sorted_best, with_masks, angle
        if kpt_shape is not None:  # as ultralytics' heads for poses say it
            self.kpt_shape = kpt_shape

    def forward(self, x: torch.Tensor) -> tuple:
        feats, scores = self.maps(x)
        distances = torch.full((len(x), 4, self.bins, scores.shape[2]), -30.0)
        if self.bins == 1:
            distances[:] = REACH
        else:
            distances[:, :, 1:3] = 0.0  # half 1 and half 2
        heads = {"boxes": distances.flatten(1, 2), "scores": scores, "feats": feats}
        boxes = torch.ones(len(x), 4, scores.shape[2])
        decoded = torch.cat([boxes, scores.sigmoid()], dim=1)
        if self.angle is not None:
            heads["angle"] = torch.full_like(scores[:, :1], self.angle) + scores[:, :1] / 8 - scores[:, :1].detach() / 8
        if hasattr(self, "kpt_shape"):
            keypoints, numbers = self.kpt_shape  # each with the numbers x, y and perhaps a logit
            factors = torch.arange(1, keypoints + 1)[:, None] * torch.arange(numbers)
            heads["kpts"] = scores[:, :1] * factors.reshape(-1, 1)
        if self.sorted_best:
            best = scores.sigmoid().flatten(1).topk(5).values
            decoded = torch.cat([torch.ones(len(x), 5, 4), best[..., None], torch.zeros(len(x), 5, 1)], dim=2)
            heads = {"one2many": {}, "one2one": heads}
        if not self.with_masks:
            return decoded, heads
        prototypes = self.stem(x)[:, :2]
        heads["mask_coefficient"] = torch.ones(len(x), 2, scores.shape[2])
        return (decoded, prototypes), heads


class Queries(Blobs):
    """The form of transformers' DETR family. no_object: a softmax with one logit more; else sigmoids."""

    def __init__(self, no_object: bool) -> None:
        super().__init__()
        self.no_object, self.config = no_object, SimpleNamespace(num_labels=2)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        feats, scores = self.maps(x)
        logits = scores.mT
        if self.no_object:
            logits = torch.cat([logits, torch.ones_like(logits[..., :1])], dim=2)
        return {"logits": logits, "pred_boxes": _boxes_of_cells(feats).expand(len(x), -1, -1)}


def _boxes_of_cells(feats: list[torch.Tensor]) -> torch.Tensor:
    boxes = []
    for feat in feats:
        rows, columns = feat.shape[2:]
        y, x = torch.meshgrid((torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns, indexing="ij")
        boxes.append(torch.stack([x, y, x * 0 + 2 * REACH / columns, y * 0 + 2 * REACH / rows], dim=-1).flatten(0, 1))
    return torch.cat(boxes)


def torchvision_fcos(**options: object) -> nn.Module:
    """torchvision's FCOS of three classes on a backbone of two levels; scores of untrained ones are about 0.5."""
    from torchvision.models.detection import FCOS
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    torch.manual_seed(0)
    sizes = {"min_size": 64, "max_size": 128, "score_thresh": 0.1, "nms_thresh": 0.5, "detections_per_img": 7} | options
    anchors = AnchorGenerator(((16,), (32,)), ((1.0,),) * 2)
    net = FCOS(_TwoLevels(32), 3, anchor_generator=anchors, **sizes).eval()
    nn.init.normal_(net.head.classification_head.cls_logits.weight, std=0.5)
    nn.init.zeros_(net.head.classification_head.cls_logits.bias)
    return net


def torchvision_faster_rcnn(**options: object) -> nn.Module:
    """torchvision's Faster R-CNN of three classes on a backbone of two levels."""
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.ops import MultiScaleRoIAlign

    torch.manual_seed(0)
    sizes = {"min_size": 64, "max_size": 128, "box_detections_per_img": 7, "rpn_post_nms_top_n_test": 30} | options
    anchors = AnchorGenerator(((16,), (32,)), ((1.0,),) * 2)
    pool = MultiScaleRoIAlign(["0", "1"], 3, 2)
    return FasterRCNN(_TwoLevels(16), 3, rpn_anchor_generator=anchors, box_roi_pool=pool, **sizes).eval()


def torchvision_mask_rcnn() -> nn.Module:
    """torchvision's Mask R-CNN of three classes on a backbone of two levels."""
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

    heads = {"mask_head": MaskRCNNHeads(16, (8,), 1), "mask_predictor": MaskRCNNPredictor(8, 8, 3)}
    return MaskRCNN(_TwoLevels(16), **heads, **_of_instances("mask", classes=3)).eval()


def torchvision_keypoint_rcnn() -> nn.Module:
    """torchvision's Keypoint R-CNN of two classes and four keypoints on a backbone of two levels."""
    from torchvision.models.detection import KeypointRCNN
    from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor

    heads = {"keypoint_head": KeypointRCNNHeads(16, (8,)), "keypoint_predictor": KeypointRCNNPredictor(8, 4)}
    return KeypointRCNN(_TwoLevels(16), **heads, **_of_instances("keypoint", classes=2)).eval()


def _of_instances(kind: str, classes: int) -> dict[str, object]:
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.ops import MultiScaleRoIAlign

    torch.manual_seed(0)
    return {
        "min_size": 64,
        "max_size": 128,
        "box_detections_per_img": 7,
        "rpn_post_nms_top_n_test": 30,
        "rpn_anchor_generator": AnchorGenerator(((16,), (32,)), ((1.0,),) * 2),
        "box_roi_pool": MultiScaleRoIAlign(["0", "1"], 3, 2),
        "box_head": TwoMLPHead(16 * 9, 32),
        "box_predictor": FastRCNNPredictor(32, classes),
        f"{kind}_roi_pool": MultiScaleRoIAlign(["0", "1"], 6, 2),
    }


class _TwoLevels(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_channels = channels
        self.first = nn.Sequential(block(3, channels, 4), block(channels, channels, 2))
        self.second = block(channels, channels, 2)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        first = self.first(x)
        return {"0": first, "1": self.second(first)}
