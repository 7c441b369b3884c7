"""What an evaluation found: a number for each image, as tables with intervals and as a figure."""

from __future__ import annotations

import csv
import html
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

_RESAMPLES = 2000
_TAIL = 2.5  # per cent on either side of the interval
_ARROWS = {True: "↑", False: "↓"}
_LATEX_ARROWS = {True: r"$\uparrow$", False: r"$\downarrow$"}


class Estimate(NamedTuple):
    """The mean over the images, and the 95 % interval of it. NaN where the metric does not apply to the row."""

    mean: float
    low: float
    high: float


class Cost(NamedTuple):
    """Of an image: forwards through the whole model, and seconds."""

    forwards: float
    seconds: float


@dataclass(frozen=True)
class Row:
    """One method at one layer of one model, or a baseline.

    values: the numbers of the images (N,), by metric. maps, metrics: what making the maps cost, and what measuring
    them.
    """

    model: str
    method: str
    layer: str
    values: dict[str, np.ndarray]
    maps: Cost
    metrics: Cost
    is_baseline: bool = False

    @property
    def name(self) -> str:
        """The row as text."""
        return ", ".join(part for part in (self.model, self.method, self.layer) if part)


@dataclass(frozen=True)
class Evaluation:
    """Rows of methods and baselines, columns of metrics.

    directions: by metric, whether higher is better. images: how many. assumptions: what nobody said. seed: of the
    intervals, which are the percentiles of the means of 2,000 sets of images drawn with replacement, the same sets for
    every row.
    """

    rows: Sequence[Row]
    directions: dict[str, bool]
    images: int
    assumptions: Sequence[str] = ()
    seed: int = 0
    _estimates: dict[tuple[int, str], Estimate] = field(default_factory=dict, repr=False, compare=False)

    def estimate(self, row: Row, metric: str) -> Estimate:
        """Mean and 95 % interval of a metric in a row. Images without a number, NaN, are left out."""
        key = id(row), metric
        if key not in self._estimates:
            self._estimates[key] = self._estimated(row.values[metric])
        return self._estimates[key]

    def _estimated(self, values: np.ndarray) -> Estimate:
        known = np.isfinite(values)
        if not known.any():
            return Estimate(np.nan, np.nan, np.nan)
        drawn = self._resampled
        counts = known[drawn].sum(1)
        with np.errstate(invalid="ignore"):
            means = np.where(known[drawn], values[drawn], 0).sum(1) / counts
        low, high = np.nanpercentile(means, [_TAIL, 100 - _TAIL])
        return Estimate(float(values[known].mean()), float(low), float(high))

    @property
    def _resampled(self) -> np.ndarray:
        return _draws(self.images, self.seed)

    def records(self) -> list[dict[str, Any]]:
        """A dict for each row: names, for each metric the mean, and its interval as 'low' and 'high', and the cost."""
        found = []
        for row in self.rows:
            record: dict[str, Any] = {"model": row.model, "method": row.method, "layer": row.layer}
            for metric in self.directions:
                record[metric], record[f"{metric} low"], record[f"{metric} high"] = self.estimate(row, metric)
            record["forwards"], record["seconds"] = row.maps
            record["metric forwards"], record["metric seconds"] = row.metrics
            found.append(record)
        return found

    def to_pandas(self) -> pandas.DataFrame:
        """The records as a DataFrame. Needs pandas."""
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("to_pandas needs pandas: pip install pandas; records() and to_csv() do not") from error
        return pd.DataFrame(self.records())

    def to_csv(self, file: str | os.PathLike[str] | None = None) -> str:
        """The records as CSV; written to the file, too, if there is one."""
        text = io.StringIO()
        records = self.records()
        writer = csv.DictWriter(text, [*records[0]], lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
        return _written(text.getvalue(), file)

    def to_latex(self, file: str | os.PathLike[str] | None = None) -> str:
        """A booktabs table: the mean and half of the interval's width, the best method of each metric in bold."""
        metrics = [f"{_escaped(name)} {_LATEX_ARROWS[higher]}" for name, higher in self.directions.items()]
        lines = [rf"\begin{{tabular}}{{l{'r' * (len(metrics) + 2)}}}", r"\toprule"]
        lines.append(" & ".join(["", *metrics, "forwards", "seconds"]) + r" \\")
        lines.append(r"\midrule")
        for row in self.rows:
            cells = [_escaped(row.name)]
            for metric in self.directions:
                shown = self._shown(row, metric, r" $\pm$ ")
                cells.append(rf"\textbf{{{shown}}}" if row is self.best(metric) else shown)
            lines.append(" & ".join([*cells, *_cost(row)]) + r" \\")
        lines += [r"\bottomrule", r"\end{tabular}", ""]
        return _written("\n".join(lines), file)

    def best(self, metric: str) -> Row | None:
        """The method with the best mean; baselines do not count. None where no method has one."""
        known = [row for row in self.rows if not row.is_baseline and np.isfinite(self.estimate(row, metric).mean)]
        choose = max if self.directions[metric] else min
        return choose(known, key=lambda row: self.estimate(row, metric).mean, default=None)

    def figure(self) -> Figure:
        """A panel for each metric: the means with their intervals, baselines in grey."""
        from matplotlib.figure import Figure

        count = len(self.directions)
        figure = Figure(figsize=(2.5 + 2.6 * count, 1.2 + 0.3 * len(self.rows)), layout="constrained")
        panels = figure.subplots(1, count, sharey=True, squeeze=False)[0]
        places = np.arange(len(self.rows))[::-1]
        for axes, (metric, higher) in zip(panels, self.directions.items(), strict=True):
            found = np.array([self.estimate(row, metric) for row in self.rows])
            for place, row, (mean, low, high) in zip(places, self.rows, found, strict=True):
                colour = "0.6" if row.is_baseline else "C0"
                axes.plot([low, high], [place, place], color=colour)
                axes.plot([mean], [place], "o", color=colour)
            axes.set_title(f"{metric} {_ARROWS[higher]}")
            axes.grid(axis="x", alpha=0.3)
        panels[0].set_yticks(places, [row.name for row in self.rows])
        return figure

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(name)} {_ARROWS[higher]}</th>" for name, higher in self.directions.items())
        body = []
        for row in self.rows:
            cells = []
            for metric in self.directions:
                shown = html.escape(self._shown(row, metric, " ± "))
                cells.append(f"<td>{f'<b>{shown}</b>' if row is self.best(metric) else shown}</td>")
            cost = "".join(f"<td>{cell}</td>" for cell in _cost(row))
            body.append(f"<tr><th>{html.escape(row.name)}</th>{''.join(cells)}{cost}</tr>")
        head = f"<tr><th></th>{head}<th>forwards</th><th>seconds</th></tr>"
        notes = html.escape(self._notes)
        return f"<table><thead>{head}</thead><tbody>{''.join(body)}</tbody></table><p>{notes}</p>"

    def __str__(self) -> str:
        """The table as text in Markdown."""
        metrics = [f"{name} {_ARROWS[higher]}" for name, higher in self.directions.items()]
        lines = [["", *metrics, "forwards", "seconds"], ["---"] * (len(metrics) + 3)]
        lines += [[row.name, *(self._shown(row, m, " ± ") for m in self.directions), *_cost(row)] for row in self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{self._notes}"

    def __repr__(self) -> str:
        return f"<Evaluation of {len(self.rows)} rows by {', '.join(self.directions)} over {self.images} images>"

    @property
    def _notes(self) -> str:
        said = "; ".join([f"{self.images} images; mean ± half of the 95 % interval (bootstrap over images)"])
        cost = "forwards and seconds of an image's map"
        return "; ".join([said, cost, *self.assumptions])

    def _shown(self, row: Row, metric: str, between: str) -> str:
        mean, low, high = self.estimate(row, metric)
        return "-" if not np.isfinite(mean) else f"{mean:.3f}{between}{(high - low) / 2:.3f}"


@cache
def _draws(images: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, images, (_RESAMPLES, images))


def _cost(row: Row) -> list[str]:
    return [f"{row.maps.forwards:.4g}", f"{row.maps.seconds:.2g}"]


def _escaped(text: str) -> str:
    return "".join(f"\\{character}" if character in "&%$#_{}" else character for character in text)


def _written(text: str, file: str | os.PathLike[str] | None) -> str:
    if file is not None:
        with open(file, "w", encoding="utf-8") as opened:
            opened.write(text)
    return text
