"""The notebooks as pages: text, code and what it printed or drew."""

import base64
import json
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

from site_pages import ROOT

FOLDER = ROOT / "docs/notebooks"


def files(config: Any) -> list[File]:
    """For each notebook a page and its pictures."""
    return [file for notebook in sorted(FOLDER.glob("*.ipynb")) for file in _converted(notebook, config)]


def _converted(notebook: Path, config: Any) -> list[File]:
    parts, pictures = [], []
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                name = f"{notebook.stem}_{len(pictures)}.png"
                content = base64.b64decode("".join(data["image/png"]))
                pictures.append(File.generated(config, f"notebooks/{name}", content=content))
                parts.append(f"![What the code above draws]({name})")
            elif "text/html" in data:
                parts.append(f"<div>{''.join(data['text/html'])}</div>")
            else:
                printed = output.get("text", data.get("text/plain", ""))
                parts.append(f"```text\n{''.join(printed).rstrip()}\n```")
    parts.append(f"This page is a notebook: [{notebook.name}]({notebook.name}).")
    return [File.generated(config, f"notebooks/{notebook.stem}.md", content="\n\n".join(parts)), *pictures]
