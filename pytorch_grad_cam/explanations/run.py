"""Explain all images of a list, in batches that processes share, and continue an earlier run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pytorch_grad_cam.explanations.explainer import Explainer
from pytorch_grad_cam.explanations.explanation import Explanation
from pytorch_grad_cam.explanations.results import record_of, save_results
from pytorch_grad_cam.explanations.stream import streamed
from pytorch_grad_cam.explanations.truth import tell
from pytorch_grad_cam.folder.batches import Batch, decoded, plan
from pytorch_grad_cam.folder.image_list import ListedImage
from pytorch_grad_cam.folder.manifest import Manifest, shared_manifest
from pytorch_grad_cam.folder.processes import Process
from pytorch_grad_cam.zoo.unusable_input import UnusableInput

if TYPE_CHECKING:
    from pytorch_grad_cam.explanations.typed import Truth

_TOP_CLASSES = 5


class Run(NamedTuple):
    """A run over the images of a list. kinds: the results to write of each, see `explanations.results.KINDS`.

    workers: the number of processes that decode, and of threads that draw. is_strict: raise the first error. truth: the
    right classes, see `truth.tell`.
    """

    explainer: Explainer
    images: Sequence[ListedImage]
    output_dir: Path
    kinds: Sequence[str]
    batch_size: int
    workers: int
    process: Process = Process()
    is_strict: bool = False
    truth: Truth | None = None

    def explanations(self) -> Iterator[Explanation]:
        """Write the missing results and the manifest; give the explanations that are made, once their files are there.

        A batch of which anything is missing is made again as a whole. So the results are the same to the byte, however
        often the run is stopped and by however many processes it is continued, on machines that add in the same order.
        (RandomCAM draws anew.) Images that could not be read are tried again; where one can be now, so is its batch.
        Cost: see `Explainer`, and that of one image more; of the list only the names stay in memory.
        """
        with shared_manifest(self.output_dir, self.images, self.process) as manifest:
            assigned = plan(len(self.images), self.batch_size)[self.process.rank :: self.process.world_size]
            missing = self._missing(manifest, assigned)
            for made in self._made(assigned, missing):
                manifest.append(record for record, _ in made)
                errors = [record["error"] for record, _ in made if "error" in record]
                if self.is_strict and errors:
                    raise UnusableInput(errors[0])
                yield from (explanation for _, explanation in made if explanation is not None)

    def failed(self) -> list[str]:
        """Why images have no results."""
        return list(Manifest(self.output_dir, self.process.rank).failed().values())

    def record(self, position: int, explanation: Explanation | UnusableInput) -> dict[str, Any]:
        """Write the files of one image; its line in the manifest, with an error where they cannot be written."""
        path, name = self.images[position]
        if isinstance(explanation, UnusableInput):
            return {"path": path, "error": str(explanation)}
        tell(explanation, self.truth, position, name)
        try:
            targets = save_results(explanation, self.output_dir, name, self.kinds)
        except OSError as error:
            return {"path": path, "error": f"{path}: its results cannot be written ({error})"}
        top_classes = [
            {"class": category, "name": class_name, "probability": round(probability, 6)}
            for category, class_name, probability in explanation.top(_TOP_CLASSES)
        ]
        truth = {} if explanation.truth is None else {"truth": explanation.truth}
        return record_of(path, explanation, {"top_classes": top_classes, **truth}, targets)

    def _explain_first(self) -> None:
        """Explain the first image that can be read alone.

        So what is found of the model, such as its layer, does not depend on which images this process explains.
        """
        for position in range(len(self.images)):
            (batch,) = decoded(self._paths, self.explainer.classifier.preprocess, [[position]], workers=0, pinned=False)
            for group in batch.groups:
                self.explainer(group.inputs, 1, group.sizes, shown=False)
                return

    @property
    def _paths(self) -> list[str]:
        return [image.path for image in self.images]

    def _missing(self, manifest: Manifest, assigned: list[list[int]]) -> list[list[int]]:
        """The assigned batches of which anything is missing but images that still cannot be read."""
        complete, failed = manifest.complete(), manifest.failed()
        tried = [[position for position in batch if self.images[position].path in failed] for batch in assigned]
        again = self._decoded(list(filter(None, tried)), pinned=False)
        unreadable = {position: why for batch in (again if any(tried) else ()) for position, why in batch.unreadable}
        if self.is_strict and unreadable:
            raise UnusableInput(next(iter(unreadable.values())))
        paths = self._paths
        return [batch for batch in assigned if any(paths[p] not in complete and p not in unreadable for p in batch)]

    def _decoded(self, batches: list[list[int]], pinned: bool) -> Any:
        return decoded(self._paths, self.explainer.classifier.preprocess, batches, self.workers, pinned)

    def _made(
        self, assigned: list[list[int]], missing: list[list[int]]
    ) -> Iterator[list[tuple[dict[str, Any], Explanation | None]]]:
        from tqdm import tqdm

        def finish(
            position: int, explanation: Explanation | UnusableInput
        ) -> tuple[dict[str, Any], Explanation | None]:
            record = self.record(position, explanation)
            return record, None if isinstance(explanation, UnusableInput) else explanation

        total = sum(map(len, assigned))
        done = total - sum(map(len, missing))
        batches: Iterator[Batch] = iter(())
        if missing:
            batches = iter(
                self._decoded(missing, pinned=self.explainer.device.type == "cuda")
            )  # are decoded from here on
            self._explain_first()
        hidden = {"disable": True} if self.process.rank else {}
        with (
            ThreadPoolExecutor(self.workers) as threads,
            tqdm(total=total, initial=done, unit="image", **hidden) as bar,
        ):
            titles = [Path(path).name for path in self._paths].__getitem__
            for made in streamed(self.explainer, batches, titles, finish, threads):
                bar.update(len(made))
                yield made
