"""Classifiers of sounds: waveforms (N, samples), spectrograms (N, time, mel), (N, mel, time) or (N, 1, mel, time)."""

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.families.question import Case, Question, of_class

CLASSES = 5
SMALL = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "num_labels": CLASSES,
}  # fmt: skip
CONVOLUTIONS = {
    "conv_dim": [16] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "classifier_proj_size": 16,
}  # fmt: skip


def transformers_cases() -> Iterator[Case]:
    yield "transformers AST", _ast
    for name, part in (
        ("Wav2Vec2", "wav2vec2"),
        ("Hubert", "hubert"),
        ("WavLM", "wavlm"),
        ("UniSpeechSat", "unispeech_sat"),
        ("Data2VecAudio", "data2vec_audio"),
    ):
        yield f"transformers {name}", partial(_of_waveform, name, part)
    yield "transformers Whisper", _whisper


def _ast() -> Question:
    import transformers

    config = transformers.ASTConfig(**SMALL, max_length=128, num_mel_bins=64)
    model = transformers.ASTForAudioClassification(config)
    inputs = {"input_values": torch.randn(1, 128, 64)}
    sensible = r"audio_spectrogram_transformer(\.encoder(\.layer(s)?\.1(\..+)?)?|\.layernorm|\.layers\.1(\..+)?)?"
    return Question(model, inputs, of_class(), sensible, "input_values", lambda image: image[:, None])


def _of_waveform(name: str, part: str) -> Question:
    import transformers

    config = getattr(transformers, f"{name}Config")(**SMALL, **CONVOLUTIONS)
    model = getattr(transformers, f"{name}ForSequenceClassification")(config)
    inputs = {"input_values": torch.randn(1, 8000)}
    sensible = (
        rf"{part}(\.encoder(\.layers\.1(\..+)?|\.layer_norm)?|\.feature_projection(\..+)?"
        r"|\.feature_extractor(\.conv_layers\.6(\..+)?)?)?|projector"
    )
    return Question(model, inputs, of_class(), sensible, "input_values", lambda signal: signal[:, None])


def _whisper() -> Question:
    """Mel bins are the channels of a signal."""
    import transformers

    config = transformers.WhisperConfig(
        num_mel_bins=16, encoder_layers=2, encoder_attention_heads=4, decoder_layers=1, encoder_ffn_dim=64, d_model=32,
        max_source_positions=100, vocab_size=50, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1, classifier_proj_size=16, num_labels=CLASSES,
    )  # fmt: skip
    model = transformers.WhisperForAudioClassification(config)
    sensible = r"encoder(\.layers\.1(\..+)?|\.layer_norm)?|projector"
    return Question(model, {"input_features": torch.randn(1, 16, 200)}, of_class(), sensible, "input_features")


def timm_cases() -> Iterator[Case]:
    """On spectrograms as images of one channel, twice as long as they are high."""
    for name, sensible in (
        ("resnet18", r"layer4(\.\d+)?"),
        ("efficientnet_lite0", r"blocks\.6(\..+)?|conv_head|bn2(\..+)?"),
        ("convnext_atto", r"stages\.3(\..+)?|stages"),
        ("vit_tiny_patch16_224", r"blocks\.11(\.norm1|\.norm2)?|blocks|norm"),
    ):
        yield f"timm {name} mel", partial(_timm, name, sensible)


def _timm(name: str, sensible: str) -> Question:
    import timm

    options = {"img_size": (128, 256)} if name.startswith("vit") else {}
    model = timm.create_model(name, pretrained=False, in_chans=1, num_classes=CLASSES, **options)
    return Question(model, torch.randn(1, 1, 128, 256), of_class(), sensible)
