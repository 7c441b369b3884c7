"""Explain all images of a list, in batches that processes share, and continue an earlier run."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pytorch_grad_cam.folder.batches import Batch, decoded, plan
from pytorch_grad_cam.folder.explained import Explained, explain_batch
from pytorch_grad_cam.folder.image_list import ListedImage
from pytorch_grad_cam.folder.manifest import Manifest
from pytorch_grad_cam.folder.processes import Process
from pytorch_grad_cam.folder.results import save_results
from pytorch_grad_cam.zoo.classifiers import Classifier

# Batches whose files are still being written while the model goes on. A choice: their maps wait in memory.
_BATCHES_AHEAD = 2


class Task(NamedTuple):
    """The results to make of each image, and where.

    method: its name in the manifest. kinds: the results to write, see `results.KINDS`. categories, smoothing: see
    `explained.explain_batch`.
    """

    classifier: Classifier
    cam: Any
    method: str
    output_dir: Path
    kinds: Sequence[str]
    categories: Sequence[int]
    smoothing: dict[str, bool]


def explain_images(
    task: Task, images: Sequence[ListedImage], batch_size: int, workers: int, process: Process
) -> list[str]:
    """Write the missing results and the manifest; return why images have no results.

    A batch of which anything is missing is made again as a whole. So the results are the same to the byte, however
    often the run is stopped and by however many processes it is continued, on machines that add in the same order.
    (RandomCAM draws anew.) Images that could not be read are tried again; where one can be now, so is its batch.
    workers: the number of processes that decode, and of threads that draw.
    Cost: see `explained.explain_batch`; of the list only the names stay in memory.
    """
    manifest = Manifest(task.output_dir, process.rank)
    if process.rank == 0:
        manifest.merge(images)
    process.wait_for_all()
    assigned = plan(len(images), batch_size)[process.rank :: process.world_size]
    missing = _missing(task, manifest, images, assigned, workers)
    for records in _records(task, images, assigned, missing, workers, process):
        manifest.append(records)
    process.wait_for_all()
    if process.rank == 0:
        manifest.merge(images)
    return list(manifest.failed().values())


def _missing(
    task: Task, manifest: Manifest, images: Sequence[ListedImage], assigned: list[list[int]], workers: int
) -> list[list[int]]:
    """The assigned batches of which anything is missing but images that still cannot be read."""
    complete, failed = manifest.complete(), manifest.failed()
    tried = [[position for position in batch if images[position].path in failed] for batch in assigned]
    again = decoded(images, task.classifier.preprocess, list(filter(None, tried)), workers, pinned=False)
    unreadable = {position for batch in (again if any(tried) else ()) for position, _ in batch.unreadable}
    return [batch for batch in assigned if any(images[p].path not in complete and p not in unreadable for p in batch)]


def _records(
    task: Task,
    images: Sequence[ListedImage],
    assigned: list[list[int]],
    missing: list[list[int]],
    workers: int,
    process: Process,
) -> Iterator[list[dict[str, Any]]]:
    """The manifest's records of each missing batch, once its files are written."""
    from tqdm import tqdm

    total = sum(map(len, assigned))
    done = total - sum(map(len, missing))
    loader = decoded(images, task.classifier.preprocess, missing, workers, pinned=task.cam.device.type == "cuda")
    begun: deque[list[Future[dict[str, Any]]]] = deque()
    hidden = {"disable": True} if process.rank else {}
    with ThreadPoolExecutor(workers) as threads, tqdm(total=total, initial=done, unit="image", **hidden) as progress:
        for batch in loader if missing else ():
            begun.append(list(begin(task, images, batch, threads)))
            if len(begun) > _BATCHES_AHEAD:
                yield _finished(begun.popleft(), progress)
        for futures in begun:
            yield _finished(futures, progress)


def begin(
    task: Task, images: Sequence[ListedImage], batch: Batch, threads: ThreadPoolExecutor
) -> Iterator[Future[dict[str, Any]]]:
    """Explain a batch; the threads draw and write its files, and return each image's record for the manifest."""
    for position, error in batch.unreadable:
        yield threads.submit(dict, path=images[position].path, error=error)
    for positions, x in batch.groups:
        on_device = x.to(task.cam.device, non_blocking=True)
        batch_explained = explain_batch(task.cam, task.classifier, on_device, task.categories, **task.smoothing)
        for position, image, explained in zip(positions, x, batch_explained, strict=True):
            yield threads.submit(_saved, task, images[position], image, explained)


def _finished(futures: list[Future[dict[str, Any]]], progress: Any) -> list[dict[str, Any]]:
    records = [future.result() for future in futures]
    progress.update(len(records))
    return records


def _saved(task: Task, listed: ListedImage, image: torch.Tensor, explained: Explained) -> dict[str, Any]:
    """Write the files of one image (C, H, W); return its record, with an error where they cannot be written."""
    picture = task.classifier.picture(image)

    def described(category: int) -> dict[str, Any]:
        name = task.classifier.names(len(explained.probabilities))[category]
        probability = explained.probabilities[category]
        return {"class": category, "name": name, "probability": round(probability, 6)}

    targets = []
    for category, cam_map in zip(explained.targets, explained.maps, strict=True):
        name = f"{listed.name}.{category}" if len(explained.targets) > 1 else listed.name
        try:
            results = save_results(task.output_dir, name, picture, cam_map, task.kinds)
        except OSError as error:
            return {"path": listed.path, "error": f"{listed.path}: its results cannot be written ({error})"}
        targets.append(described(category) | results)
    return {
        "path": listed.path,
        "size": list(picture.shape[:2]),
        "top_classes": [described(category) for category in explained.top_classes],
        "method": task.method,
        "layers": explained.layers,
        "targets": targets,
        "warnings": explained.warnings,
    }
