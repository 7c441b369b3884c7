"""Files that are there as a whole or not at all, also when the process is killed."""

from pathlib import Path


def write_whole(file: Path, content: bytes) -> None:
    """Write beside the file, then rename; makes the folders."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f"{file.name}.part")
    temporary.write_bytes(content)
    temporary.replace(file)
