"""The files of a Qt resource collection (.rcc), as GCompris keeps its pictures."""

import struct
import subprocess
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_FOLDER, _ZLIB, _ZSTD = 2, 1, 4


@cache
def files_of(collection: Path) -> dict[str, bytes]:
    """Name to content. Needs the program `zstd` where the collection is compressed by it.

    The format: https://doc.qt.io/qt-6/resources.html, as written by rcc; all numbers have the highest byte first.
    """
    data = collection.read_bytes()
    version, tree, contents, names = struct.unpack_from(">4I", data, 4)
    entry_size = 14 if version == 1 else 22

    def name_at(offset: int) -> str:
        (length,) = struct.unpack_from(">H", data, names + offset)
        return data[names + offset + 6 :][: 2 * length].decode("utf-16-be")

    def below(index: int) -> Iterator[tuple[str, bytes]]:
        name, flags = struct.unpack_from(">IH", data, tree + index * entry_size)
        if flags & _FOLDER:
            count, first = struct.unpack_from(">II", data, tree + index * entry_size + 6)
            for child in range(first, first + count):
                yield from below(child)
        else:
            (start,) = struct.unpack_from(">I", data, tree + index * entry_size + 10)
            (length,) = struct.unpack_from(">I", data, contents + start)
            yield name_at(name), _unpacked(data[contents + start + 4 :][:length], flags)

    return dict(below(0))


def _unpacked(content: bytes, flags: int) -> bytes:
    if flags & _ZLIB:
        return zlib.decompress(content[4:])
    if flags & _ZSTD:
        return subprocess.run(["zstd", "-dc"], input=content, stdout=subprocess.PIPE, check=True).stdout
    return content
