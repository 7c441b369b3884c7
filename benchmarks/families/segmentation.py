"""Segmentation networks. A class is asked for, within its mask, and the mean of another class's logits."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from benchmarks.families.question import Case, Question, of_mean, of_pixels

CLASSES = 5
SIDE = 128
# Of DPT, but for what carries an earlier stage of the encoder alone.
NECK = r"neck(?!\.(reassemble_stage\.(layers|readout_projects)\.[0-2]|convs\.[0-2]))(\..+)?"


def torchvision_cases() -> Iterator[Case]:
    resnet = r"backbone(\.layer4(\.\d+)?)?|classifier\.[0-3](\..+)?"
    mobilenet = r"backbone(\.1[3-6](\.\d+)?)?|classifier\.([0-3]|cbr|scale)(\..+)?"
    # Of 128 pixels each of the 8 x 8 cells of a MobileNet's last stage looks at all: no place can be told there.
    for name, side, sensible in (
        ("fcn_resnet50", SIDE, resnet),
        ("deeplabv3_resnet50", SIDE, resnet),
        ("deeplabv3_mobilenet_v3_large", 2 * SIDE, mobilenet),
        ("lraspp_mobilenet_v3_large", 2 * SIDE, mobilenet),
    ):
        yield f"torchvision {name}", partial(_torchvision, name, side, sensible)


def _torchvision(name: str, side: int, sensible: str) -> Question:
    from torchvision.models import segmentation

    model = getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=CLASSES)
    return Question(model, torch.randn(1, 3, side, side), of_pixels(), sensible)


def segmentation_models_pytorch_cases() -> Iterator[Case]:
    shortcuts = r"p[234]\.skip_conv|gau\d\.conv2|block1|feature_norms\.[0-2]|fpn_lateral_blocks|mlp_stage\.[1-4]"
    shortcuts += r"|(projection|reassemble)_blocks\.[0-2]|blocks\.x_[1-4]"
    decoder = rf"|decoder(?!\.({shortcuts}))(\..+)?"
    for name, encoder in (
        ("Unet", "resnet18"), ("UnetPlusPlus", "resnet18"), ("MAnet", "resnet18"), ("Linknet", "resnet18"),
        ("FPN", "resnet18"), ("PSPNet", "resnet18"), ("PAN", "resnet18"), ("DeepLabV3", "resnet18"),
        ("DeepLabV3Plus", "resnet18"), ("UPerNet", "resnet18"), ("Segformer", "resnet18"), ("Unet", "mobilenet_v2"),
        ("Segformer", "mit_b0"), ("DPT", "tu-vit_tiny_patch16_224"),
    ):  # fmt: skip
        sensible = {
            "resnet18": r"encoder(\.layer4(\.\d+)?)?",
            "mobilenet_v2": r"encoder(\.features\.1[4-8](\.\d+)?)?",
            "mit_b0": r"encoder(\.(block4|norm4|patch_embed4)(\..+)?)?",
            "tu-vit_tiny_patch16_224": r"encoder(\.model\.(blocks\.(9|10|11)(\.norm1|\.norm2)?|norm))?",
        }[encoder] + decoder
        if name == "PSPNet":  # which takes the third stage for its last
            sensible += r"|encoder\.layer2(\.\d+)?"
        yield (
            f"segmentation_models_pytorch {name} {encoder}",
            partial(_smp, name, encoder, sensible),
        )


def _smp(name: str, encoder: str, sensible: str) -> Question:
    import segmentation_models_pytorch

    model = getattr(segmentation_models_pytorch, name)(encoder, encoder_weights=None, classes=CLASSES)
    side = 224 if name in ("DPT", "PSPNet") else SIDE
    return Question(model, torch.randn(1, 3, side, side), of_pixels(), sensible)


def monai_cases() -> Iterator[Case]:
    """Volumes of one channel."""
    stages = {"channels": (8, 16, 32), "strides": (2, 2)}
    kernels = {"kernel_size": [3, 3, 3], "strides": [1, 2, 2], "upsample_kernel_size": [2, 2]}
    for name, options, side, sensible in (
        ("UNet", stages, 32, r"model\.1\.submodule\.1\.submodule(\..+)?|model\.1\.submodule(\.[12](\..+)?)?|model\.1"),
        ("BasicUNet", {"features": (8, 8, 16, 32, 64, 8)}, 32, r"down_4(\..+)?|upcat_[1-4](\..+)?"),
        ("AttentionUnet", stages, 32, r"model\.1(?!\.submodule\.0)(\..+)?"),
        ("DynUNet", {**kernels, "filters": [8, 16, 32]}, 32, r"bottleneck(\..+)?|upsamples(\..+)?|skip_layers(\..+)?"),
        ("SegResNet", {}, 32, r"down_layers\.3(\..+)?|up_(layers|samples)(\..+)?|conv_final\.[01]"),
        ("SwinUNETR", {"feature_size": 12, "depths": (1, 1, 1, 1)}, 64,
         r"swinViT\.layers4(\..+)?|encoder10(\..+)?|decoder\d(\..+)?"),
        ("UNETR", {"img_size": 32, "feature_size": 8, "hidden_size": 32, "mlp_dim": 64, "num_heads": 4}, 32,
         r"vit(\.blocks\.(9|10|11)(\.norm\d)?|\.norm)?|decoder\d(\..+)?"),
        ("VNet", {}, 32, r"down_tr256(\..+)?|up_tr\d+(\..+)?"),
    ):  # fmt: skip
        yield (
            f"monai {name}",
            partial(_monai, name, options, side, sensible),
        )


def _monai(name: str, options: dict[str, Any], side: int, sensible: str) -> Question:
    from monai.networks import nets

    rank = {} if name == "VNet" else {"spatial_dims": 3}
    model = getattr(nets, name)(in_channels=1, out_channels=3, **rank, **options)
    return Question(model, torch.randn(1, 1, side, side, side), of_pixels(), sensible)


def transformers_cases() -> Iterator[Case]:
    for name, build in (
        ("Segformer", _segformer),
        ("MobileViT", _mobilevit),
        ("MobileViTV2", _mobilevit),
        ("MobileNetV2", _mobilenet),
        ("UperNet ConvNeXt", _upernet),
        ("UperNet Swin", _upernet),
        ("Beit", _beit),
        ("Data2VecVision", _beit),
        ("DPT", _dpt),
        ("Mask2Former", _mask2former),
        ("MaskFormer", _maskformer),
        ("Eomt", _eomt),
        ("CLIPSeg", _clipseg),
        ("Sam", _sam),
    ):
        yield f"transformers {name}", partial(build, name)


def _semantic(name: str, config: Any, side: int, sensible: str) -> Question:
    import transformers

    model = getattr(transformers, f"{name}ForSemanticSegmentation")(config)
    return Question(model, torch.randn(1, 3, side, side), of_pixels(), sensible)


def _segformer(name: str) -> Question:
    import transformers

    config = transformers.SegformerConfig(
        hidden_sizes=[16, 32, 32, 64], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=32,
        num_labels=CLASSES,
    )  # fmt: skip
    return _semantic(
        name, config, SIDE, r"segformer(\..+)?\.3(\..+)?|decode_head\.(?!classifier|linear_projections\.[0-2]).+"
    )


def _mobilevit(name: str) -> Question:
    import transformers

    small = {
        "MobileViT": {
            "hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 16, 24, 32, 64], "initializer_range": 0.2,
        }
    }  # fmt: skip
    config = getattr(transformers, f"{name}Config")(num_labels=CLASSES, **small.get(name, {"width_multiplier": 0.5}))
    return _semantic(
        name, config, SIDE, r"mobilevit(v2)?(\.encoder(\.layer\.4(\..+)?)?)?|segmentation_head\.aspp(\..+)?"
    )


def _mobilenet(name: str) -> Question:
    import transformers

    config = transformers.MobileNetV2Config(num_labels=CLASSES, depth_multiplier=0.5)
    return _semantic(
        name, config, SIDE, r"mobilenet_v2(\.(layer\.1[3-5]|conv_1x1)(\..+)?)?|segmentation_head\.(?!classifier).+"
    )


def _upernet(name: str) -> Question:
    import transformers

    library, backbone = name.split()
    if backbone == "Swin":
        of_backbone = transformers.SwinConfig(
            image_size=SIDE, embed_dim=16, depths=[1, 1, 1, 1], num_heads=[2, 2, 2, 2], window_size=4,
            out_features=["stage1", "stage2", "stage3", "stage4"],
        )  # fmt: skip
    else:
        of_backbone = transformers.ConvNextConfig(
            hidden_sizes=[8, 16, 32, 64], depths=[1, 1, 1, 1], out_features=["stage1", "stage2", "stage3", "stage4"]
        )
    config = transformers.UperNetConfig(
        backbone_config=of_backbone,
        hidden_size=32,
        auxiliary_in_channels=64 if backbone == "Swin" else 32,
        auxiliary_channels=16,
        num_labels=CLASSES,
    )
    last_stage = r"backbone(\.swin)?(\.encoder\.(stages|layers)\.3(\..+)?|\.hidden_states_norms\.stage4)?"
    sensible = rf"{last_stage}|decode_head\.(?!classifier|lateral_convs).+"
    return _semantic(library, config, SIDE, sensible)


def _beit(name: str) -> Question:
    import transformers

    config = getattr(transformers, f"{name}Config")(
        image_size=SIDE, hidden_size=32, num_hidden_layers=4, num_attention_heads=4, intermediate_size=64,
        out_indices=[0, 1, 2, 3], use_auxiliary_head=False, num_labels=CLASSES,
    )  # fmt: skip
    part = "beit" if name == "Beit" else "data2vec_vision"
    sensible = rf"{part}(\.encoder)?(\.layers?\.3(\..+)?)?|(fpn\.)?fpn4|decode_head\.(?!classifier|lateral_convs).+"
    return _semantic(name, config, SIDE, sensible)


def _dpt(name: str) -> Question:
    import transformers

    config = transformers.DPTConfig(
        image_size=SIDE, hidden_size=32, num_hidden_layers=4, num_attention_heads=4, intermediate_size=64,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 16, 16, 32], fusion_hidden_size=16,
        use_auxiliary_head=False, num_labels=CLASSES,
    )  # fmt: skip
    return _semantic(
        name, config, SIDE, rf"dpt(\.encoder(\.layer(s)?\.3(\..+)?)?|\.layernorm)?|{NECK}|head\.head\.[0-2]"
    )


_SMALL_SWIN = {
    "image_size": SIDE, "embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [2, 2, 2, 2], "window_size": 4,
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}  # fmt: skip


def _mask2former(name: str) -> Question:
    import transformers

    config = transformers.Mask2FormerConfig(
        backbone_config=transformers.SwinConfig(**_SMALL_SWIN), feature_size=32, mask_feature_size=32, hidden_dim=32,
        encoder_feedforward_dim=64, encoder_layers=2, decoder_layers=3, num_attention_heads=4, dim_feedforward=64,
        num_queries=10, num_labels=CLASSES,
    )  # fmt: skip
    # The transformer's first projection, of as many channels, is an identity: it hands on what the decoder returns.
    decoder = r"model\.pixel_level_module\.decoder(?!\.(adapter_1|input_projections\.[12]))(\..+)?"
    encoder = r"model\.pixel_level_module\.encoder(\.swin)?\.encoder\.(layers|stages)\.3.*"
    return _universal(name, config, rf"{encoder}|{decoder}|model\.transformer_module\.input_projections\.0")


def _maskformer(name: str) -> Question:
    import transformers

    config = transformers.MaskFormerConfig(
        backbone_config=transformers.MaskFormerSwinConfig(**_SMALL_SWIN), fpn_feature_size=32, mask_feature_size=32,
        decoder_config=transformers.DetrConfig(
            d_model=32, encoder_layers=1, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
            encoder_ffn_dim=64, decoder_ffn_dim=64, num_queries=10,
        ),
        num_labels=CLASSES,
    )  # fmt: skip
    # The transformer's projection, 1 x 1, is all that the queries see of the last stage.
    encoder = r"model\.pixel_level_module(\.encoder((\..+)?\.(layers|stages|hidden_states_norms)\.3.*)?)?"
    decoder = r"model\.pixel_level_module\.decoder(?!\.fpn\.layers\.\d\.proj)(\..+)?"
    return _universal(name, config, rf"{encoder}|{decoder}|model\.transformer_module\.input_projection")


def _eomt(name: str) -> Question:
    import transformers

    config = transformers.EomtConfig(
        image_size=SIDE, hidden_size=32, num_hidden_layers=4, num_attention_heads=4, patch_size=16, num_blocks=2,
        num_queries=10, num_upscale_blocks=2, num_labels=CLASSES,
    )  # fmt: skip
    return _universal(name, config, r"layers\.3(\..+)?|layernorm|upscale_block(\..+)?")


def _universal(name: str, config: Any, sensible: str) -> Question:
    """Of masks and their classes, put together as the library's image processors do it."""
    import transformers

    kind = "ForInstanceSegmentation" if name == "MaskFormer" else "ForUniversalSegmentation"
    model = getattr(transformers, f"{name}{kind}")(config)
    options = {"output_transform": _classes_of_pixels}
    return Question(model, torch.randn(1, 3, SIDE, SIDE), of_pixels(_classes_of_pixels), sensible, options=options)


def _classes_of_pixels(output: Any) -> torch.Tensor:
    classes = output.class_queries_logits.softmax(-1)[..., :-1]
    return torch.einsum("nqc,nqhw->nchw", classes, output.masks_queries_logits.sigmoid())


def _clipseg(name: str) -> Question:
    import transformers

    small = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64}
    config = transformers.CLIPSegConfig(
        text_config={**small, "vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2},
        vision_config={**small, "image_size": SIDE, "patch_size": 16}, projection_dim=32, extract_layers=[1, 2, 3],
        reduce_dim=16, decoder_intermediate_size=32,
    )  # fmt: skip
    text = torch.tensor([[1, 5, 8, 9, 2]])
    inputs = {"pixel_values": torch.randn(1, 3, SIDE, SIDE), "input_ids": text, "attention_mask": torch.ones_like(text)}
    sensible = (
        r"clip\.vision_model\.encoder(\.layers\.[23](\..+)?)?|decoder\.(?!transposed_convolution|reduces\.[12]).+"
    )
    model = transformers.CLIPSegForImageSegmentation(config)
    return Question(model, inputs, of_mean(lambda output: output.logits), sensible, "pixel_values")


def _sam(name: str) -> Question:
    import transformers

    config = transformers.SamConfig(
        vision_config=transformers.SamVisionConfig(
            hidden_size=32, output_channels=16, num_hidden_layers=2, num_attention_heads=4, image_size=SIDE,
            window_size=4, global_attn_indexes=[1], num_pos_feats=8, mlp_dim=64, initializer_range=0.02,
        ),
        prompt_encoder_config=transformers.SamPromptEncoderConfig(hidden_size=16, image_size=SIDE),
        mask_decoder_config=transformers.SamMaskDecoderConfig(
            hidden_size=16, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=16
        ),
    )  # fmt: skip
    inputs = {"pixel_values": torch.randn(1, 3, SIDE, SIDE), "input_points": torch.tensor([[[[60.0, 70.0]]]])}

    def masks(output: Any) -> torch.Tensor:
        return output.pred_masks

    sensible = r"vision_encoder(\.layers\.1(\..+)?|\.neck(\..+)?)?|mask_decoder\.upscale_(?!conv2).+"
    model = transformers.SamModel(config)
    options = {"output_transform": masks}
    return Question(model, inputs, of_mean(masks), sensible, "pixel_values", options=options)
