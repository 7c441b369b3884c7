"""How to cite what was used: the entries of `papers.bib`, each with the names that it is the paper of."""

import difflib
import re
from functools import cache
from pathlib import Path

_PAPERS = Path(__file__).with_name("papers.bib")
_PACKAGE = "pytorch_grad_cam"


def cite(*names: str) -> str:
    """The papers of methods, metrics and targets as BibTeX, each once; without a name the entry of this package.

    names: of classes and of the metrics of `evaluate`, in any case, with or without hyphens, underscores and spaces.
    An entry's `keywords` are the names that it is the paper of. Raises ValueError for another name, with those that are
    meant.

    >>> print(cite("layercam").partition(",")[0])
    @article{jiang2021layercam
    """
    found = {entry: None for name in names or (_PACKAGE,) for entry in _entries_of(name)}
    return "\n\n".join(found)


@cache
def cited_names() -> dict[str, tuple[str, ...]]:
    """The entries of each name, by the name in lower case without hyphens, underscores and spaces."""
    found: dict[str, list[str]] = {}
    for entry in re.findall(r"^@.*?^}", _PAPERS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        (keywords,) = re.findall(r"^  keywords\s*= \{(.*)\},$", entry, re.MULTILINE)
        for name in keywords.split(", "):
            found.setdefault(_plain(name), []).append(entry)
    return {name: tuple(entries) for name, entries in found.items()}


def _entries_of(name: str) -> tuple[str, ...]:
    known = cited_names()
    plain = _plain(name.replace("++", "plusplus"))
    if plain in known:
        return known[plain]
    close = difflib.get_close_matches(plain, known, n=3)
    hint = f"; did you mean {' or '.join(close)}?" if close else f": choose from {', '.join(sorted(known))}"
    raise ValueError(f"no paper of {name!r} is known{hint}")


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character not in "-_ ")
