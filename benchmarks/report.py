"""Results of a benchmark: a JSON file in `benchmarks/results`, and a table in the documents that quote it.

`python -m benchmarks.report` puts the tables of all results into the documents anew, as after a merge.
"""

import argparse
import json
import platform
import re
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
DOCUMENTS = [ROOT / "README.md", Path(__file__).parent / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def save(name: str, rows: dict[str, Any], notes: str = "") -> dict[str, Any]:
    """Write the rows to `results/<name>.json` with date, machine and versions; returns all of it."""
    report = {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": _machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "notes": notes,
        "rows": rows,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
    return report


def rows_of(name: str) -> dict[str, Any]:
    """The rows of `results/<name>.json`."""
    return json.loads((RESULTS / f"{name}.json").read_text())["rows"]


def suffix_of(device: str) -> str:
    """Of the names of results that each device has of its own."""
    return "" if device == "cpu" else f"_{device}"


def write_report(name: str, rows: dict[str, dict], notes: str = "") -> None:
    """Save the rows; print them as a table and put it between the marks `<!-- name -->` of the documents."""
    report = save(name, rows, notes)
    sys.stdout.write(quoted(report))
    for document in DOCUMENTS:
        document.write_text(filled(document.read_text(), name, report))


def refill() -> None:
    """Put the tables of all results that are quoted into the documents."""
    for document in DOCUMENTS:
        text = document.read_text()
        for name in re.findall(r"<!-- /(\w+) -->", text):
            text = filled(text, name, json.loads((RESULTS / f"{name}.json").read_text()))
        document.write_text(text)


def filled(document: str, name: str, report: dict[str, Any]) -> str:
    """The document with the table between its marks; of `<!-- name: row; row -->` those rows alone."""

    def shown(found: re.Match[str]) -> str:
        rows = found[2].split("; ") if found[2] else report["rows"]
        return f"{found[1]}{quoted({**report, 'rows': {row: report['rows'][row] for row in rows}})}{found[3]}"

    marks = rf"(<!-- {name}(?:: ([^>]*))? -->\n)[^\0]*?(<!-- /{name} -->)"
    return re.sub(marks, shown, document)


def quoted(report: dict[str, Any]) -> str:
    """A table with the date, the machine and the notes below."""
    origin = f"{report['date']}, {report['machine']}, torch {report['torch']}; {report['notes']}"
    return f"{table(report['rows'])}\n\n{origin}\n"


def table(rows: dict[str, dict]) -> str:
    """The rows, label to column to value, as a Markdown table."""
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    lines = [f"| | {' | '.join(columns)} |", "| --- |" + " --- |" * len(columns)]
    for label, row in rows.items():
        lines.append(f"| {label} | " + " | ".join(_cell(row.get(column)) for column in columns) + " |")
    return "\n".join(lines)


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def _machine() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text().splitlines() if cpu_info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = models[0] if models else platform.processor()
    return f"{name}, {torch.get_num_threads()} threads"


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.splitlines()[2]).parse_args()
    refill()
