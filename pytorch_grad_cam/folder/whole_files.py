"""Files that exist as a whole or not at all, even when the process is killed."""

import hashlib
import os
from pathlib import Path


def write_whole(file: Path, content: bytes) -> None:
    """Write to a temporary file in the same folder, which is made, and rename it. Raises OSError where that fails."""
    file.parent.mkdir(parents=True, exist_ok=True)
    short = hashlib.sha256(os.fsencode(file.name)).hexdigest()  # the file's name with a suffix may be too long
    temporary = file.with_name(f"{short}.part")
    try:
        temporary.write_bytes(content)
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
