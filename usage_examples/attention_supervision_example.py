"""A map in a loss: `python usage_examples/attention_supervision_example.py` (needs scikit-learn).

The bundled network is trained on for some steps with two losses: its classes have to be right, and its maps have to lie
within the boxes of the digits.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from pytorch_grad_cam import LayerCAM
from pytorch_grad_cam.demo import load_digits_net, preprocess_scene
from pytorch_grad_cam.demo.scenes import CLASSES, SIZE, make_scene
from pytorch_grad_cam.utils.image import show_cam_on_image

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=40)
parser.add_argument("--batch-size", type=int, default=16)
parser.add_argument("--weight", type=float, default=1, help="of the loss of the maps beside that of the classes")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--output-dir", type=Path, default=Path("output"))
options = parser.parse_args()


def drawn(rng, split, count):
    """Images, their two classes (N, 2), as a label (N, 10) too, and the boxes as masks (N, 2, 64, 64)."""
    scenes = [make_scene(rng, split) for _ in range(count)]
    classes = torch.tensor(np.stack([scene.labels for scene in scenes]))
    boxes = torch.zeros(count, 2, SIZE, SIZE)
    for of_scene, scene in zip(boxes, scenes, strict=True):
        for box, (left, top, right, bottom) in zip(of_scene, scene.boxes, strict=True):
            box[top:bottom, left:right] = 1
    images = preprocess_scene(np.stack([scene.image for scene in scenes]))
    return images, classes, torch.zeros(count, CLASSES).scatter(1, classes, 1.0), boxes


def share_in_boxes(maps, boxes):
    """How much of each map lies in the box of its digit, (N, 2)."""
    return (maps * boxes).sum((2, 3)) / maps.sum((2, 3)).clamp(min=1e-6)


def measured(model, images, classes, boxes):
    with LayerCAM(model, "layer4") as cam:
        maps = cam(images, classes, as_tensor=True)
        found = cam.outputs.topk(2).indices
    right = (found.sort().values == classes.sort().values).all(1).float().mean()
    return f"{share_in_boxes(maps, boxes).mean():.3f} of the maps in the boxes, both digits right in {right:.1%}", maps


model, rng = load_digits_net(), np.random.default_rng(options.seed)
test_images, test_classes, _, test_boxes = drawn(np.random.default_rng(1), "test", 100)
before, maps_before = measured(model, test_images, test_classes, test_boxes)
print(f"before: {before}")

optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
# Batch normalisation keeps its statistics: a map explains the model in evaluation mode, so that is what is trained.
with LayerCAM(model, "layer4", detach=False) as cam:
    for step in range(options.steps):
        images, classes, labels, boxes = drawn(rng, "train", options.batch_size)
        maps = cam(images, classes, as_tensor=True)  # (N, 2, 64, 64), in the graph
        of_maps = (1 - share_in_boxes(maps, boxes)).mean()
        of_classes = F.binary_cross_entropy_with_logits(model(images), labels)
        optimizer.zero_grad()
        (of_classes + options.weight * of_maps).backward()
        optimizer.step()
        if step % 10 == 0:
            print(f"step {step}: loss of the classes {of_classes:.3f}, of the maps {of_maps:.3f}")

after, maps_after = measured(model, test_images, test_classes, test_boxes)
print(f"after:  {after}")

scenes = ((test_images[:4] * 0.25 + 0.5).clamp(0, 1) * 255).byte().movedim(1, -1).numpy()
rows = [
    np.hstack([show_cam_on_image(scene, heat[0].numpy(), use_rgb=True) for scene, heat in zip(scenes, maps)])  # noqa: B905
    for maps in (maps_before, maps_after)
]
picture = Image.fromarray(np.vstack(rows))
options.output_dir.mkdir(parents=True, exist_ok=True)
file = options.output_dir / "attention_supervision.png"
picture.resize((picture.width * 4, picture.height * 4)).save(file)
print(f"wrote {file}")
