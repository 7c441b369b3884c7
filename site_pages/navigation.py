"""The site's navigation: what `mkdocs.yml` lists, and behind it every other page of the same folder."""

import re
from pathlib import Path
from typing import Any

from site_pages import cards, reference

_MADE = {"Methods": cards, "Reference": reference}


def complete(config: Any) -> None:
    """Add to each section of the navigation the pages of its folders that it does not list, by their titles."""
    docs = Path(config.docs_dir)
    for section in config.nav:
        ((title, entries),) = section.items()
        if title in _MADE:
            entries += _MADE[title].navigation()
        elif isinstance(entries, list):
            entries += _unlisted(docs, entries)


def _unlisted(docs: Path, entries: list[Any]) -> list[dict[str, str]]:
    listed = _pages(entries)
    folders = sorted({str(Path(page).parent) for page in listed} - {"."})
    pages = [page for folder in folders for page in sorted((docs / folder).glob("*.md"))]
    return [{_title(page): name} for page in pages if (name := page.relative_to(docs).as_posix()) not in listed]


def _pages(entry: Any) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    return [page for each in (entry.values() if isinstance(entry, dict) else entry) for page in _pages(each)]


def _title(page: Path) -> str:
    return re.search(r"^# (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)[1]
