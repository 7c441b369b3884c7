"""The configuration that the maps in a folder were made with; maps of another one are not mixed with them."""

import json
from pathlib import Path
from typing import Any

from pytorch_grad_cam.folder.processes import Process
from pytorch_grad_cam.folder.whole_files import write_whole
from pytorch_grad_cam.zoo.unusable_input import UnusableInput


def claim(folder: Path, configuration: dict[str, Any], process: Process) -> None:
    """Write `configuration.json`, by one of the processes.

    Raises UnusableInput, which says what differs, where images were explained with another configuration.
    """
    file = folder / "configuration.json"
    known = json.loads(file.read_text()) if file.exists() else configuration
    names = [name for name in {**known, **configuration} if known.get(name) != configuration.get(name)]
    if names and any(manifest.stat().st_size for manifest in folder.glob("manifest*.jsonl")):
        changes = ", ".join(f"{name} was {known.get(name)!r}, is {configuration.get(name)!r}" for name in names)
        raise UnusableInput(f"{folder} holds maps of another configuration ({changes}): pass another --output-dir")
    if process.rank == 0:
        write_whole(file, (json.dumps(configuration, indent=1) + "\n").encode())
