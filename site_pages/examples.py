"""The scripts of `usage_examples`, to copy."""

import ast
from typing import Any

from mkdocs.structure.files import File

from site_pages import ROOT


def files(config: Any) -> list[File]:
    """One page with all of them."""
    parts = [
        "# Complete scripts to copy",
        "Each runs offline with `--weights none`, from any folder, and writes its pictures to `--output-dir`.",
    ]
    for script in sorted((ROOT / "usage_examples").glob("*.py")):
        source = script.read_text(encoding="utf-8")
        first = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
        parts += [f"## {script.name}", first, f"```python\n{source}```"]
    return [File.generated(config, "how-to/examples.md", content="\n\n".join(parts))]
