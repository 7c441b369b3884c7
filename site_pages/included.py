"""Sections of documents of the repository within pages of the site, so that they are written once."""

import re
from typing import Any

from mkdocs.structure.files import File

from site_pages import ROOT

_INCLUDE = re.compile(r"^<!-- include ([\w./]+?)(?:: (.+?))? -->$", re.MULTILINE)
_IMAGES = {"examples": "images", "benchmarks/results": "evidence/results"}
# Where a document of the repository leads from a page in docs/<folder>/.
_LINKS = {
    "results/": "results/",
    "benchmarks/README.md": "../evidence/index.md",
    "../benchmarks/README.md": "../evidence/index.md",
    "tests/README.md": "tests.md",
    "CONTRIBUTING.md": "contributing.md",
    "findings/README.md": "findings.md",
    "docs/": "../",
}

_OUTSIDE = {
    r"\]\((?:\.\./)+usage_examples/(\w+)\.py\)": r"how-to/examples.md#\1py",
    r"\]\((?:\.\./)+benchmarks/README\.md(?:#[\w-]+)?\)": "evidence/index.md",
    r"\]\((?:\.\./)+CONTRIBUTING\.md(#[\w-]+)?\)": r"contribute/contributing.md\1",
    r"\]\((?:\.\./)+CHANGELOG\.md\)": "contribute/changelog.md",
}


def files(config: Any) -> list[File]:
    """The pictures of the examples and of the benchmarks."""
    return [
        File.generated(config, f"{folder}/{picture.name}", abs_src_path=str(picture))
        for source, folder in _IMAGES.items()
        for picture in sorted((ROOT / source).iterdir())
        if picture.suffix in (".png", ".jpg")
    ]


def filled(markdown: str, page: str) -> str:
    """The page with what its lines `<!-- include FILE: HEADING -->` name.

    Links from docs/ to the repository's files, which are right where the page is read there, lead to the site's pages.
    """
    markdown = _INCLUDE.sub(lambda found: _section(*found.groups()), markdown)
    up = "../" * page.count("/")
    for there, here in _OUTSIDE.items():
        markdown = re.sub(there, lambda found, here=here: f"]({up}{found.expand(here)})", markdown)
    return markdown


def _section(name: str, heading: str | None) -> str:
    text = (ROOT / name).read_text(encoding="utf-8")
    if heading is not None:
        found = re.search(rf"^(## {re.escape(heading)}\n.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
        if found is None:
            raise ValueError(f"{name} has no section {heading!r}")
        text = found[1]
    for there, here in _LINKS.items():
        text = text.replace(f"]({there}", f"]({here}")
    return text
