"""What a vision-language model answers to the pictures of a folder, or of any list, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import nn

import pytorch_grad_cam
from pytorch_grad_cam.explanations.explanation import Explanation
from pytorch_grad_cam.explanations.results import record_of, save_results
from pytorch_grad_cam.explanations.words import Asked, answer_explained
from pytorch_grad_cam.folder.configuration import claim
from pytorch_grad_cam.folder.image_list import ListedImage
from pytorch_grad_cam.folder.manifest import shared_manifest
from pytorch_grad_cam.folder.processes import process_group
from pytorch_grad_cam.zoo.unusable_input import UnusableInput


def written_answers(
    model: nn.Module, images: Sequence[ListedImage], output_dir: Path, kinds: Sequence[str], asked: Asked
) -> Iterator[Explanation]:
    """Write the files of `kinds` for each word, and the manifest; give the explanations that are made.

    An image whose files are there is left out, one that cannot be read or answered is in the manifest with the reason.
    Processes that were started together share the images. Raises UnusableInput where the folder has maps of another
    prompt, model or option.
    """
    with process_group() as process:
        claim(output_dir, {**_configuration(model, asked), "save": list(kinds)}, process)
        with shared_manifest(output_dir, images, process) as manifest:
            complete = manifest.complete()
            for path, name in images[process.rank :: process.world_size]:
                if path in complete:
                    continue
                try:
                    explanation = answer_explained(model, path, asked, Path(path).name)
                    targets = save_results(explanation, output_dir, name, kinds)
                except (UnusableInput, OSError) as error:
                    manifest.append([{"path": path, "error": str(error)}])
                    continue
                answer = {"prompt": asked.prompt, "said": explanation.said, "top_classes": []}
                manifest.append([record_of(path, explanation, answer, targets)])
                yield explanation


def _configuration(model: nn.Module, asked: Asked) -> dict[str, Any]:
    """What the maps depend on, as far as it has a name."""
    return {
        "version": pytorch_grad_cam.__version__,
        "model": type(model).__name__,
        "prompt": asked.prompt,
        "max_new_tokens": asked.longest,
        "methods": [method.__name__ for method in asked.methods],
        "options": {name: str(getattr(value, "__name__", value)) for name, value in asked.options.items()},
    }
