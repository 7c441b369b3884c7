"""Files that are there as a whole or not at all, also when the process is killed."""

import hashlib
import os
from pathlib import Path


def write_whole(file: Path, content: bytes) -> None:
    """Write beside the file, then rename; makes the folders. Raises OSError where that cannot be."""
    file.parent.mkdir(parents=True, exist_ok=True)
    own = hashlib.sha256(os.fsencode(file.name)).hexdigest()  # short, also where the file's name may not be longer
    temporary = file.with_name(f"{own}.part")
    try:
        temporary.write_bytes(content)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
