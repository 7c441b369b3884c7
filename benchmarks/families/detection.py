"""Detectors. A box is asked for: the best one, by a callable; the best one of a class; that one by its coordinates."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch

from benchmarks.families.question import Case, Question, Target
from pytorch_grad_cam import BoxTarget

CLASSES = 5
SIDE = 256
SMALL_RESNET = {
    "embedding_size": 16, "hidden_sizes": [16, 32, 64, 128], "depths": [1, 1, 1, 1], "layer_type": "basic",
}  # fmt: skip
SMALL_ATTENTION = {
    "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "num_queries": 10, "num_labels": CLASSES,
}  # fmt: skip
# A vision model that also reads text gets these.
TOKENS = torch.tensor([[1, 5, 8, 9, 2]])


def torchvision_cases() -> Iterator[Case]:
    """Raw images of the size that the model works with, so that nothing is resized inside."""
    resnet = r"backbone\.body\.layer4(\.\d+)?|backbone\.fpn(?!\.inner_blocks)(\..+)?|backbone"
    mobilenet = r"backbone\.body(\.1[3-6])?|backbone\.fpn(?!\.inner_blocks)(\..+)?|backbone"
    towers = r"|head\.classification_head\.conv(\.\d+)*"
    of_boxes = {"box_score_thresh": 0.0, "rpn_pre_nms_top_n_test": 40, "rpn_post_nms_top_n_test": 20}
    of_anchors = {"score_thresh": 0.0}
    for name, options, sensible in (
        ("fasterrcnn_resnet50_fpn", of_boxes, resnet),
        ("fasterrcnn_resnet50_fpn_v2", of_boxes, resnet),
        ("fasterrcnn_mobilenet_v3_large_fpn", of_boxes, mobilenet),
        ("fasterrcnn_mobilenet_v3_large_320_fpn", of_boxes, mobilenet),
        ("maskrcnn_resnet50_fpn", of_boxes, resnet),
        ("maskrcnn_resnet50_fpn_v2", of_boxes, resnet),
        ("keypointrcnn_resnet50_fpn", {**of_boxes, "num_classes": 2}, resnet),
        ("retinanet_resnet50_fpn", of_anchors, resnet + towers),
        ("retinanet_resnet50_fpn_v2", of_anchors, resnet + towers),
        ("fcos_resnet50_fpn", of_anchors, resnet + towers),
        ("ssd300_vgg16", of_anchors, r"backbone(\.extra(\..+)?)?"),
        ("ssdlite320_mobilenet_v3_large", of_anchors, r"backbone(\.features\.1(\.[1-3])?|\.extra(\..+)?)?"),
    ):
        side = int(name[3:6]) if name.startswith("ssd3") else SIDE
        yield f"torchvision {name}", _torchvision(name, side, options, sensible, listed=False)
    yield (
        "torchvision fasterrcnn_mobilenet_v3_large_fpn, a list of images",
        _torchvision("fasterrcnn_mobilenet_v3_large_fpn", SIDE, of_boxes, mobilenet, listed=True),
    )


def _torchvision(name: str, side: int, options: dict, sensible: str, listed: bool) -> Callable[[], Question]:
    def build() -> Question:
        from torchvision.models import detection

        fixed = {} if name.startswith("ssd") else {"min_size": side, "max_size": side}
        options_here = {"num_classes": CLASSES, "detections_per_img": 10, **fixed, **options}
        if "rcnn" in name:
            options_here["box_detections_per_img"] = options_here.pop("detections_per_img")
        model = getattr(detection, name)(weights=None, weights_backbone=None, **options_here)
        if name.startswith("ssd300"):  # whose scores are all 1, else: its features are hundreds
            model.backbone.scale_weight.data /= 20
            for layer in model.head.classification_head.module_list:
                layer.weight.data /= 20
        image = torch.randn(1, 3, side, side)
        if listed:
            return Question(model, [image[0]], _torchvision_boxes, sensible, 0, lambda image: image[None])
        return Question(model, image, _torchvision_boxes, sensible)

    return build


def _torchvision_boxes(output: Any) -> dict[str, Target]:
    label = int(output[0]["labels"][0])
    return {
        "best box": Target(lambda boxes: boxes["scores"].max(), lambda output: output[0]["scores"].max()),
        "class": Target(label, lambda output: output[0]["scores"][output[0]["labels"] == label].max()),
        **_of_box(output[0]["boxes"][0].tolist(), label, lambda output: output[0]["scores"][0]),
    }


def _of_box(box: Sequence[float], label: int, score: Callable[[Any], torch.Tensor]) -> dict[str, Target]:
    """That box by its coordinates; nothing where random weights gave it no area."""
    x0, y0, x1, y1 = box
    return {"box": Target(BoxTarget(tuple(box), label), score)} if x0 < x1 and y0 < y1 else {}


def ultralytics_cases() -> Iterator[Case]:
    """Built from the package's own descriptions; their output holds the scores of all cells behind the boxes."""
    for name in (
        "yolov3-tiny", "yolov5n", "yolov6n", "yolov8n", "yolov8n-ghost", "yolov8n-p2", "yolov9t", "yolov10n",
        "yolo11n", "yolo12n", "yolo26n", "yolov8n-seg", "yolo11n-seg", "yolo12n-seg", "yolo26n-seg",
        "yolov8n-pose", "yolo11n-pose", "yolo26n-pose", "yolov8n-obb", "yolo11n-obb", "yolo26n-obb",
        "rtdetr-resnet50", "yolov8n-rtdetr",
    ):  # fmt: skip
        yield f"ultralytics {name}", partial(_ultralytics, name)


def _ultralytics(name: str) -> Question:
    from ultralytics.nn import tasks

    kinds = {"seg": tasks.SegmentationModel, "pose": tasks.PoseModel, "obb": tasks.OBBModel}
    is_detr = "rtdetr" in name
    kind = tasks.RTDETRDetectionModel if is_detr else kinds.get(name.rpartition("-")[2], tasks.DetectionModel)
    model = kind(f"{name}.yaml", nc=CLASSES, verbose=False)
    model.requires_grad_()
    encoder_end, head = len(model.yaml["backbone"]) - 1, len(model.model) - 1
    behind = "|".join(map(str, _behind(model.model, encoder_end)))
    within = "encoder|input_proj" if is_detr else r"cv3|one2one_cv3"
    sensible = rf"model\.({behind})(\..+)?|model\.{head}\.({within})(\.\d+(\.[01])?(\..+)?)?"
    return Question(model, torch.rand(1, 3, SIDE, SIDE), _boxes_of_detr if is_detr else _boxes_of_cells, sensible)


def _behind(layers: Any, encoder_end: int) -> list[int]:
    """The numbers of the layers that read the end of the encoder, directly or not, but for the head."""
    behind = [encoder_end]
    for layer in layers[encoder_end + 1 : -1]:
        sources = [layer.f] if isinstance(layer.f, int) else layer.f
        if any((layer.i + source if source < 0 else source) in behind for source in sources):
            behind.append(layer.i)
    return behind


def _boxes_of_cells(output: Any) -> dict[str, Target]:
    """Of (N, 4 + classes + more, cells)."""

    def scores(output: Any) -> torch.Tensor:
        boxes = output[0] if isinstance(output[0], torch.Tensor) else output[0][0]
        return boxes[0, 4 : 4 + CLASSES]

    label = int(scores(output).amax(1).argmax())
    cell = int(scores(output)[label].argmax())
    return {
        "best box": Target(lambda boxes: boxes[4 : 4 + CLASSES].max(), lambda output: scores(output).max()),
        "class": Target(label, lambda output: scores(output)[label].max()),
        **_of_box(_box_of_cell(output, cell), label, lambda output: scores(output)[label, cell]),
    }


def _box_of_cell(output: Any, cell: int) -> tuple[float, ...]:
    """The decoded box, of an oriented one the upright box around it."""
    decoded, heads = output
    x, y, width, height = (decoded if isinstance(decoded, torch.Tensor) else decoded[0])[0, :4, cell].tolist()
    if "angle" in heads.get("one2many", heads):
        angle = heads.get("one2many", heads)["angle"][0, 0, cell].item()
        cosine, sine = abs(math.cos(angle)), abs(math.sin(angle))
        width, height = width * cosine + height * sine, width * sine + height * cosine
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _boxes_of_detr(output: Any) -> dict[str, Target]:
    """Of (N, boxes, 4 numbers of the box, its score, its class)."""
    label = int(output[0][0, 0, 5])
    return {
        "best box": Target(lambda boxes: boxes[:, 4].max(), lambda output: output[0][0, :, 4].max()),
        "class": Target(label, lambda output: output[0][0, output[0][0, :, 5] == label, 4].max()),
        **_of_box(_in_pixels(output[0][0, 0, :4]), label, lambda output: output[0][0, 0, 4]),
    }


def _in_pixels(box: torch.Tensor, side: int = SIDE) -> tuple[float, ...]:
    """Of centre, width and height in shares of the image."""
    x, y, width, height = (side * box).tolist()
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def transformers_cases() -> Iterator[Case]:
    encoder = r"model\.backbone(\..+)?\.(layer4|stages\.3)(\.layers\.\d+)?|model\.backbone(\.model(\.encoder)?)?"
    of_one_map = rf"{encoder}|model\.input_proj\w*|model\.encoder(\.layers\.\d+(\..+)?|\.layernorm)?"
    of_levels = rf"{encoder}|model\.(encoder_)?input_proj\w*\.[2-9](\..+)?|model\.(encoder|decoder_input_proj)(\..+)?"
    for name, build, sensible in (
        ("Detr", _detr, of_one_map),
        ("ConditionalDetr", _detr, of_one_map),
        ("DabDetr", _dab_detr, of_one_map),
        ("TableTransformer", _detr, of_one_map),
        ("DeformableDetr", _deformable_detr, of_levels),
        ("RTDetr", _rt_detr, of_levels),
        ("RTDetrV2", _rt_detr, of_levels),
        ("DFine", _rt_detr, of_levels),
        ("Yolos", _yolos, r"vit(\.encoder(\.layer(s)?\.1(\..+)?)?|\.layernorm)?"),
        ("OwlViT", _owl, r"\w+\.vision_model(\.encoder(\.layers\.1(\..+)?)?|\.post_layernorm)?|layer_norm"),
        ("Owlv2", _owl, r"\w+\.vision_model(\.encoder(\.layers\.1(\..+)?)?|\.post_layernorm)?|layer_norm"),
        ("GroundingDino", _grounding_dino, of_levels),
    ):
        yield f"transformers {name}", partial(build, name, sensible)


def _detr(name: str, sensible: str, **options: Any) -> Question:
    import transformers

    config = getattr(transformers, f"{name}Config")(
        backbone_config=transformers.ResNetConfig(**SMALL_RESNET, out_features=["stage4"]),
        d_model=32, **SMALL_ATTENTION, **options,
    )  # fmt: skip
    model = getattr(transformers, f"{name}ForObjectDetection")(config)
    return Question(model, torch.randn(1, 3, SIDE, SIDE), _boxes_of_queries, sensible)


def _dab_detr(name: str, sensible: str) -> Question:
    return _detr(name, sensible, hidden_size=32)


def _deformable_detr(name: str, sensible: str) -> Question:
    import transformers

    config = transformers.DeformableDetrConfig(
        backbone_config=transformers.ResNetConfig(**SMALL_RESNET, out_features=["stage2", "stage3", "stage4"]),
        d_model=32, **SMALL_ATTENTION,
    )  # fmt: skip
    model = transformers.DeformableDetrForObjectDetection(config)
    return Question(model, torch.randn(1, 3, SIDE, SIDE), _boxes_of_queries, sensible)


def _rt_detr(name: str, sensible: str) -> Question:
    import transformers

    if name == "DFine":
        backbone = transformers.HGNetV2Config(
            hidden_sizes=[16, 32, 64, 128], stem_channels=[3, 16, 16], stage_in_channels=[16, 16, 32, 64],
            stage_mid_channels=[16, 16, 16, 32], stage_out_channels=[16, 32, 64, 128],
            stage_num_blocks=[1] * 4, stage_numb_of_layers=[2] * 4, out_features=["stage2", "stage3", "stage4"],
        )  # fmt: skip
    else:
        backbone = transformers.RTDetrResNetConfig(**SMALL_RESNET, out_features=["stage2", "stage3", "stage4"])
    config = getattr(transformers, f"{name}Config")(
        backbone_config=backbone, encoder_hidden_dim=32, encoder_in_channels=[32, 64, 128], d_model=32,
        decoder_in_channels=[32, 32, 32], **{**SMALL_ATTENTION, "encoder_layers": 1},
    )  # fmt: skip
    model = getattr(transformers, f"{name}ForObjectDetection")(config)
    return Question(model, torch.randn(1, 3, SIDE, SIDE), _boxes_of_queries, sensible)


def _yolos(name: str, sensible: str) -> Question:
    import transformers

    config = transformers.YolosConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, image_size=[128, 128],
        num_detection_tokens=10, num_labels=CLASSES,
    )  # fmt: skip
    model = transformers.YolosForObjectDetection(config)
    return Question(model, torch.randn(1, 3, 128, 128), partial(_boxes_of_queries, side=128), sensible)


def _owl(name: str, sensible: str) -> Question:
    import transformers

    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = getattr(transformers, f"{name}Config")(
        text_config={**small, "vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2},
        vision_config={**small, "image_size": 128, "patch_size": 16}, projection_dim=32,
    )  # fmt: skip
    model = getattr(transformers, f"{name}ForObjectDetection")(config)
    inputs = {
        "pixel_values": torch.randn(1, 3, 128, 128),
        "input_ids": TOKENS,
        "attention_mask": torch.ones_like(TOKENS),
    }
    return Question(model, inputs, partial(_boxes_of_queries, side=128), sensible, "pixel_values")


def _grounding_dino(name: str, sensible: str) -> Question:
    import transformers

    config = transformers.GroundingDinoConfig(
        backbone_config=transformers.SwinConfig(
            image_size=SIDE, embed_dim=16, depths=[1, 1, 1, 1], num_heads=[2, 2, 2, 2], window_size=4,
            out_features=["stage2", "stage3", "stage4"],
        ),
        text_config=transformers.BertConfig(
            vocab_size=1100, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64
        ),
        d_model=32, **{**SMALL_ATTENTION, "encoder_attention_heads": 4},
    )  # fmt: skip
    model = transformers.GroundingDinoForObjectDetection(config)
    text = torch.tensor([[101, 7, 1012, 9, 1012, 102]])
    inputs = {"pixel_values": torch.randn(1, 3, SIDE, SIDE), "input_ids": text, "attention_mask": torch.ones_like(text)}
    return Question(model, inputs, _boxes_of_queries, sensible, "pixel_values")


def _boxes_of_queries(output: Any, side: int = SIDE) -> dict[str, Target]:
    """Of logits (N, queries, classes), or with one more for no object, which compete by a softmax."""
    logits = output.logits[0]
    label = int(logits.amax(0)[:CLASSES].argmax())
    scores = logits.softmax(1) if logits.shape[1] == CLASSES + 1 else logits
    query = int(scores[:, label].argmax())
    box = _in_pixels(output.pred_boxes[0, query], side)
    return {
        "best box": Target(lambda logits: logits.max(), lambda output: output.logits[0].max()),
        "class": Target(label, lambda output: output.logits[0, query, label]),
        **_of_box(box, label, lambda output: output.logits[0, query, label]),
    }
