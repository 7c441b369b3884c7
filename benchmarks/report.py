"""Results of a benchmark: a table on standard output and a JSON file in `benchmarks/results`."""

import json
import platform
import sys
from datetime import datetime, timezone
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"
DOCUMENTS = [Path(__file__).parents[1] / "README.md", *(Path(__file__).parents[1] / "tutorials").glob("*.md")]


def write_report(name: str, rows: dict[str, dict], notes: str = "") -> None:
    """Write the rows to `results/<name>.json` with date, machine and versions, print and document them."""
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
    shown = f"{table(rows)}\n\n{report['date']}, {report['machine']}, torch {report['torch']}; {notes}\n"
    sys.stdout.write(shown)
    start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    for document in DOCUMENTS:
        before, found, rest = document.read_text().partition(start)
        if found:
            document.write_text(f"{before}{start}{shown}{end}{rest.partition(end)[2]}")


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
