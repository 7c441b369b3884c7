"""Small detectors of the digits in a scene, in three styles of heads on the backbone of the demo network.

Their weights come with the package, those of the backbone with `load_digits_net`; `train_detectors` made them.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn.functional import avg_pool2d
from torchvision.models.detection import FCOS, FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOSHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign, roi_align

from pytorch_grad_cam.demo.network import MEAN, STD, load_digits_net, preprocess_scene, with_own_weights
from pytorch_grad_cam.demo.scenes import CLASSES, SIZE, Scene

Style = Literal["dense", "regions", "queries"]
STYLES: tuple[Style, ...] = ("dense", "regions", "queries")
_CHANNELS = 32
_WIDTH = 64
_HEADS = 4
_DATA = Path(__file__).parent


class DigitsPyramid(nn.Module):
    """The demo network's stages `layer3` (stride 4) and `layer4` (stride 8), frozen, and a pyramid of 32 channels."""

    out_channels = _CHANNELS

    def __init__(self) -> None:
        super().__init__()
        self.body = load_digits_net().requires_grad_(False)
        self.fpn = FeaturePyramidNetwork([64, 128], _CHANNELS)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        fine, coarse = self.stages(images)
        pyramid: dict[str, torch.Tensor] = self.fpn({"0": fine, "1": coarse})
        return pyramid

    def stages(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What `layer3` and `layer4` give: (N, 64, 16, 16) and (N, 128, 8, 8)."""
        body = self.body
        fine = body.layer3(body.layer2(body.layer1(body.relu(body.bn1(body.conv1(images))))))
        return fine, body.layer4(fine)


class DigitsQueries(nn.Module):
    """A small detector of the DETR family, whose 64 queries begin as the means of 2 x 2 cells of what they attend to.

    From images (N, 3, 64, 64), see `preprocess_detector`, to 'logits' (N, 64, 10) and 'pred_boxes' (N, 64, 4): centre,
    width and height in shares of the image. A sigmoid of a logit is the score.
    """

    def __init__(self) -> None:
        super().__init__()
        self.backbone = DigitsPyramid()
        self.project = nn.Conv2d(_CHANNELS, _WIDTH, 1)
        self.positions = nn.Sequential(nn.Linear(2, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, _WIDTH))
        self.decoder = nn.ModuleList(
            nn.TransformerDecoderLayer(_WIDTH, _HEADS, 2 * _WIDTH, 0.0, batch_first=True) for _ in range(2)
        )
        self.class_head = nn.Linear(_WIDTH, CLASSES)
        self.box_head = nn.Sequential(nn.Linear(_WIDTH, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, 4))
        nn.init.constant_(self.class_head.bias, -4.0)  # few queries are objects (Lin et al. 2017, arXiv:1708.02002)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        maps = self.project(self.backbone(images)["0"])
        memory, queries = self._placed(maps), self._placed(avg_pool2d(maps, 2))
        for layer in self.decoder:
            queries = layer(queries, memory)
        shifts, sides = self.box_head(queries).split(2, dim=-1)
        centres = _centres(maps.shape[-1] // 2).to(maps) + shifts.tanh() / 4
        return {"logits": self.class_head(queries), "pred_boxes": torch.cat([centres, (sides - 1).sigmoid()], dim=-1)}

    def _placed(self, maps: torch.Tensor) -> torch.Tensor:
        """The cells of maps (N, C, h, w) as tokens (N, h * w, C) that know where they are."""
        tokens: torch.Tensor = maps.flatten(2).mT + self.positions(_centres(maps.shape[-1]).to(maps))
        return tokens


def _centres(cells: int) -> torch.Tensor:
    """x and y of the centres of cells x cells cells, in shares of the image: (cells * cells, 2)."""
    along = (torch.arange(cells) + 0.5) / cells
    return torch.stack(torch.meshgrid(along, along, indexing="xy"), dim=-1).flatten(0, 1)


def untrained(style: Style) -> nn.Module:
    """A detector with the demo network's backbone and a new head. Raises ValueError for another style.

    style: "dense" is torchvision's FCOS, "regions" its Faster R-CNN, which take images in [0, 1] and number the classes
    from 1; "queries" is `DigitsQueries`.
    """
    shown: dict[str, Any] = {"image_mean": [MEAN] * 3, "image_std": [STD] * 3, "min_size": SIZE, "max_size": SIZE}
    model: nn.Module
    if style == "dense":
        anchors = AnchorGenerator(((2,), (4,)), ((1.0,),) * 2)
        # One convolution in front of the scores, so that they see little more than a digit.
        head = FCOSHead(_CHANNELS, anchors.num_anchors_per_location()[0], CLASSES + 1, num_convs=1)
        model = FCOS(DigitsPyramid(), CLASSES + 1, anchor_generator=anchors, head=head, score_thresh=0.3, **shown)
    elif style == "regions":
        model = FasterRCNN(
            DigitsPyramid(),
            rpn_anchor_generator=AnchorGenerator(((16,), (24,)), ((1.0, 1.6),) * 2),
            rpn_post_nms_top_n_train=64,
            rpn_post_nms_top_n_test=64,
            box_batch_size_per_image=64,
            box_roi_pool=_FinestLevel(["0", "1"], 5, 2),
            box_head=nn.Sequential(
                nn.Flatten(), nn.Linear(25 * _CHANNELS, 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU()
            ),
            box_predictor=_Predictor(96),
            box_score_thresh=0.3,
            **shown,
        )
    elif style == "queries":
        model = DigitsQueries()
    else:
        raise ValueError(f"style is {style!r}, expected one of {', '.join(STYLES)}")
    return model


class _FinestLevel(MultiScaleRoIAlign):  # type: ignore[misc]
    """Boxes of digits are read from the finest level, where they are: torchvision's own reads half a cell beside."""

    def forward(
        self, x: dict[str, torch.Tensor], boxes: list[torch.Tensor], image_shapes: list[tuple[int, int]]
    ) -> torch.Tensor:
        finest = x["0"]
        scale = finest.shape[-1] / image_shapes[0][1]
        pooled: torch.Tensor = roi_align(finest, boxes, self.output_size, scale, self.sampling_ratio, aligned=True)
        return pooled


class _Predictor(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.cls_score, self.bbox_pred = nn.Linear(features, CLASSES + 1), nn.Linear(features, 4 * (CLASSES + 1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.cls_score(x), self.bbox_pred(x)


def pyramid_of(model: nn.Module) -> DigitsPyramid:
    """The backbone of a detector."""
    return next(module for module in model.modules() if isinstance(module, DigitsPyramid))


def head_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """The weights of a detector without its backbone's, in half precision."""
    return {name: value.half() for name, value in model.state_dict().items() if "body." not in name}


def weights_of(style: Style) -> str:
    """The name of the file with the weights of a head."""
    return f"detector_{style}.pt"


def load_digits_detector(style: Style = "dense") -> nn.Module:
    """A trained detector of digits, see `untrained`, on the CPU, in evaluation mode."""
    return with_own_weights(untrained(style), _DATA / weights_of(style))


def preprocess_detector(images: np.ndarray, style: Style = "dense") -> torch.Tensor:
    """The detector's input, float32 (N, 3, 64, 64), from uint8 RGB scenes (64, 64, 3) or (N, 64, 64, 3)."""
    normalised = preprocess_scene(images)
    return normalised if style == "queries" else normalised * STD + MEAN


def labels_of(scene: Scene, style: Style) -> torch.Tensor:
    """The classes of a scene's digits, as the detector numbers them."""
    return torch.from_numpy(scene.labels) + (style != "queries")
