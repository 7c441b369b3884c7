"""Pages of the site that are made from the package, the notebooks, the examples and the benchmarks' results."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
