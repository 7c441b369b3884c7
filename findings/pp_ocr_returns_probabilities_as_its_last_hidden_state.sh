#!/usr/bin/env bash
# Guess: `last_hidden_state` of a model of transformers holds features (N, steps, hidden size), so that a class's score
#   has to be looked for elsewhere; and what a model "for text recognition" returns for its classes are logits, as its
#   image processor calls them ("raw model logits ... with `logits` attribute").
# What happens: PP-OCR's readers return one tensor alone, named `last_hidden_state`, and it is the softmax of the
#   characters' scores: (N, steps, characters), each step adds up to 1. There is no `logits`. Who takes a softmax of it,
#   or explains it as a logit, gets nearly the same number for all characters, or gradients that vanish where the model
#   is sure.
# Version: transformers 5.24.0, torch 2.14.1.
# Source: transformers/models/pp_ocrv5_server_rec/modeling_pp_ocrv5_server_rec.py, PPOCRV5ServerRecHead.forward;
#   image_processing_pp_ocrv5_server_rec.py, post_process_text_recognition.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install --quiet torch==2.14.1 torchvision==0.29.1 transformers==5.24.0 numpy==2.4.6
"$folder/environment/bin/python" -W ignore - <<'PYTHON'
import torch
from transformers import PPOCRV6SmallRecConfig, PPOCRV6SmallRecForTextRecognition

torch.manual_seed(0)
config = PPOCRV6SmallRecConfig(head_out_channels=97)
model = PPOCRV6SmallRecForTextRecognition(config).eval()
logits = []
model.head.head.register_forward_hook(lambda module, inputs, output: logits.append(output))
with torch.no_grad():
    output = model(torch.randn(1, 3, 48, 320))

state = output.last_hidden_state
print("what the model returns:", list(output))
print("last_hidden_state:", tuple(state.shape), "with hidden size", config.hidden_size, "and 97 characters")
print("each step adds up to", state.sum(-1).unique().tolist())
assert list(output) == ["last_hidden_state"]
assert state.shape[-1] == 97 != config.hidden_size
assert torch.allclose(state.sum(-1), torch.ones(()), atol=1e-4)
assert torch.allclose(state, logits[0].softmax(-1), atol=1e-6)
PYTHON
