"""Heat maps of a folder by actors of Ray Data: `python usage_examples/ray_data_example.py --image-path photos`."""

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ray

from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.explanations.explainer import Explainer, Request
from pytorch_grad_cam.explanations.run import Run
from pytorch_grad_cam.explanations.stream import begin
from pytorch_grad_cam.folder.batches import decoded
from pytorch_grad_cam.folder.image_list import ListedImage, images_in
from pytorch_grad_cam.folder.manifest import Manifest
from pytorch_grad_cam.zoo.classifiers import load_classifier

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--image-path", default="examples", help="a folder, a glob or a list of paths (.txt)")
parser.add_argument("--model", default="resnet18", help="a torchvision or timm classifier, or digits")
parser.add_argument("--weights", default="default", help="default, none (random) or a file with a state dict")
parser.add_argument("--actors", type=int, default=1, help="how many processes, each with a model of its own")
parser.add_argument("--batch-size", type=int, default=8)
parser.add_argument("--use-cuda", action="store_true", help="one GPU for each actor")
parser.add_argument("--aug-smooth", action="store_true")
parser.add_argument("--output-dir", type=Path, default=Path("output"))
options = parser.parse_args()


class Actor:
    """Holds the model; explains and draws a batch at a time. What it is given and returns is sent between machines."""

    def __init__(self) -> None:
        classifier = load_classifier(options.model, options.weights)
        classifier.model.to("cuda" if options.use_cuda else "cpu")
        smoothing = {"aug_smooth": options.aug_smooth}
        request = Request([GradCAM], smoothing=smoothing, options={"align": "receptive_field"})
        self.explainer = Explainer(classifier, request)
        self.threads = ThreadPoolExecutor()

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        images = [ListedImage(path, name) for path, name in zip(rows["path"], rows["name"], strict=True)]
        run = Run(self.explainer, images, options.output_dir.absolute(), ["overlay"], len(images), workers=1)
        everything, paths = [list(range(len(images)))], [image.path for image in images]
        (batch,) = decoded(paths, self.explainer.classifier.preprocess, everything, workers=0, pinned=False)
        records = begin(self.explainer, batch, paths.__getitem__, run.record, self.threads)
        return {"record": [json.dumps(record.result()) for record in records]}


images = [
    ListedImage(str(Path(path).absolute()), name) for path, name in images_in(options.image_path, options.output_dir)
]
explained = ray.data.from_items([image._asdict() for image in images]).map_batches(
    Actor, batch_size=options.batch_size, concurrency=options.actors, num_gpus=1 if options.use_cuda else 0
)
options.output_dir.mkdir(parents=True, exist_ok=True)
manifest = Manifest(options.output_dir, rank=0)
for row in explained.iter_rows():
    record = json.loads(row["record"])
    manifest.append([record])
    files = [file for target in record.get("targets", []) for file in target["files"].values()]
    print("\n".join(f"wrote {options.output_dir / file}" for file in files) or f"not read: {record['error']}")
manifest.merge(images)
