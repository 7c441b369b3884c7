"""A card for each method: what its docstring says, what was measured, and how to cite it."""

import inspect
import json
from typing import Any

from mkdocs.structure.files import File

from pytorch_grad_cam import cite
from site_pages import ROOT, gallery
from site_pages.docstrings import as_markdown
from site_pages.families import FAMILIES, methods

_REAL = "Lite0, scenes, "


def files(config: Any) -> list[File]:
    """The cards, a table of them, and how to cite."""
    every = [method for family in methods().values() for method in family]
    return [
        File.generated(config, "methods/index.md", content=_index()),
        File.generated(config, "methods/cite.md", content=_citations(every)),
        *(File.generated(config, f"methods/{method.__name__}.md", content=_card(method)) for method in every),
    ]


def navigation() -> list[dict[str, list[str]]]:
    """The cards by family."""
    return [
        {FAMILIES[family]: [f"methods/{method.__name__}.md" for method in members]}
        for family, members in methods().items()
    ]


def _index() -> str:
    parts = ["# Methods", "A card for each says what it computes, what it costs, when to take it and when not."]
    for family, members in methods().items():
        rows = [f"| [`{method.__name__}`]({method.__name__}.md) | {_summary(method)} |" for method in members]
        parts += [f"## {FAMILIES[family]}", "\n".join(["| method | |", "| --- | --- |", *rows])]
    return "\n\n".join(parts)


def _card(method: Any) -> str:
    name = method.__name__
    reference = f"../reference/{method.__module__.removeprefix('pytorch_grad_cam.').replace('.', '/', 0)}.md"
    parts = [f"# {name}", as_markdown(inspect.getdoc(method) or "")]
    evidence = [*filter(None, [gallery.strip(name)]), *_evidence(name)]
    parts += ["## Evidence", *evidence] if evidence else []
    parts += ["## Cite", f"```bibtex\n{cite(name)}\n```"]
    parts.append(f"Arguments: [Reference]({reference}).")
    return "\n\n".join(parts)


def _evidence(name: str) -> list[str]:
    found = []
    for source, key, page, says in (
        ("digits", name, "localisation", "Localisation, digits"),
        ("real", f"{_REAL}{name}", "localisation", "Localisation, EfficientNet-Lite0 on scenes of two cut-outs"),
        ("speed", name, "speed", "Cost in forwards, ResNet-50, 8 images"),
        ("speed_vit", name, "speed", "Cost in forwards, ViT-S, 8 images"),
    ):
        report = json.loads((ROOT / "benchmarks/results" / f"{source}.json").read_text(encoding="utf-8"))
        row = {column: value for column, value in report["rows"].get(key, {}).items() if value is not None}
        if row:
            head, cells = " | ".join(row), " | ".join(_cell(value) for value in row.values())
            table = f"| {head} |\n|{' --- |' * len(row)}\n| {cells} |"
            found += [f"{says} ([all](../evidence/{page}.md), {report['date']}):", table]
    return found


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _citations(every: list[Any]) -> str:
    parts = [
        "# How to cite",
        "`pytorch_grad_cam.cite` gives the BibTeX of any method, metric or target, and without a name that of this "
        "package:",
        '```python\nfrom pytorch_grad_cam import cite\n\nprint(cite("gradcam", "ROAD"))\n```',
        f"```bibtex\n{cite()}\n```",
    ]
    for method in sorted(every, key=lambda each: each.__name__.lower()):
        parts += [f"## {method.__name__}", f"```bibtex\n{cite(method.__name__)}\n```"]
    return "\n\n".join(parts)


def _summary(method: Any) -> str:
    return (inspect.getdoc(method) or "").partition("\n\n")[0].replace("\n", " ").replace("|", "\\|")
