"""The manifest: what was made of each image, in `manifest.jsonl`, one JSON object a line."""

import json
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytorch_grad_cam.folder.image_list import ListedImage
from pytorch_grad_cam.folder.processes import Process
from pytorch_grad_cam.folder.whole_files import write_whole


class Manifest:
    """The manifest of an output folder. During a run each process appends to its own part. rank: its number."""

    def __init__(self, folder: Path, rank: int) -> None:
        self.folder = folder
        self.file = folder / "manifest.jsonl"
        self.part = folder / f"manifest.{rank}.jsonl"

    def append(self, records: Iterable[dict[str, Any]]) -> None:
        """Add records of images, whose files must be written before, to this process's part."""
        with self.part.open("a") as part:
            part.writelines(json.dumps(record) + "\n" for record in records)

    def merge(self, images: Iterable[ListedImage]) -> None:
        """Move the lines of all parts to the manifest, in the order of the images. Only one process may do it."""
        parts = sorted(self.folder.glob("manifest.*.jsonl"))
        lines = {json.loads(line)["path"]: line for file in (self.file, *parts) for line in _lines(file)}
        write_whole(self.file, "".join(lines[image.path] for image in images if image.path in lines).encode())
        for part in parts:
            part.unlink()

    def complete(self) -> set[str]:
        """The paths of the images that were explained and whose files are there."""
        explained = (record for record in map(json.loads, _lines(self.file)) if "error" not in record)
        return {record["path"] for record in explained if all(map(self._is_there, record["targets"]))}

    def failed(self) -> dict[str, str]:
        """The paths of the images that could not be read, or whose files could not be written, and why."""
        return {record["path"]: record["error"] for record in map(json.loads, _lines(self.file)) if "error" in record}

    def _is_there(self, target: dict[str, Any]) -> bool:
        return all((self.folder / file).is_file() for file in target["files"].values())


@contextmanager
def shared_manifest(folder: Path, images: Collection[ListedImage], process: Process) -> Iterator[Manifest]:
    """Within, the processes of a run append to their parts of a manifest, which is whole before; it is whole again at
    the end of all of them. A run that fails leaves its part for the next one.
    """
    manifest = Manifest(folder, process.rank)
    if process.rank == 0:
        manifest.merge(images)
    process.wait_for_all()
    yield manifest
    process.wait_for_all()
    if process.rank == 0:
        manifest.merge(images)


def _lines(file: Path) -> list[str]:
    """The complete lines of a file; a process that was killed may have left half a line at its end."""
    if not file.exists():
        return []
    return [line for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
