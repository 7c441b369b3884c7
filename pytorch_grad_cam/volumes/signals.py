"""Figures of signals and spectrograms with their maps, their axes in seconds and hertz."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pytorch_grad_cam.engine.optional_packages import needing
from pytorch_grad_cam.utils.image import check_range

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ECG_LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
_INCHES, _MOST_INCHES = 0.9, 24.0  # the height of a channel, and of all
_TICKS = 6


def signal_figure(
    signal: np.ndarray,
    mask: np.ndarray,
    *,
    rate: float | None = None,
    names: Sequence[str] | None = None,
    unit: str = "",
    start: float = 0.0,
    cmap: str = "Reds",
) -> Figure:
    """A matplotlib figure of a signal's channels, one below the other, each over the colours of its map.

    signal: (L,) or (channels, L): a waveform, the leads of an ECG, the electrodes of an EEG. mask: in [0, 1], one map
    for all channels (L,) or one for each (channels, L). rate: samples in a second; the axis is then in seconds, from
    `start` on, else in samples. names: of the channels, as `ECG_LEADS`. unit: of the values, as 'mV'.
    Raises ValueError for other shapes, maps outside [0, 1] and another number of names.
    """
    curves, heat = np.atleast_2d(signal), np.asarray(mask)
    if curves.ndim != 2 or heat.shape not in (curves.shape, curves.shape[1:]):
        raise ValueError(
            f"the signal has shape {np.shape(signal)}, the mask {heat.shape}: expected (channels, L), and (L,) or "
            "(channels, L)"
        )
    check_range(heat, "mask")
    if names is not None and len(names) != len(curves):
        raise ValueError(f"{len(names)} names for {len(curves)} channels")
    heats = np.broadcast_to(heat, curves.shape)
    figure, axes = _figure(len(curves), min(_INCHES * len(curves) + 0.8, _MOST_INCHES))
    step = 1.0 if rate is None else 1 / rate
    first = start - step / 2  # a sample lies in the middle of its colour
    times = start + step * np.arange(curves.shape[1])
    for row, (each, curve, colours) in enumerate(zip(axes, curves, heats, strict=True)):
        low, high = float(curve.min()), float(curve.max())
        margin = 0.1 * (high - low) or 1.0
        extent = (first, first + step * len(curve), low - margin, high + margin)
        each.imshow(colours[None], aspect="auto", cmap=cmap, vmin=0, vmax=1, extent=extent, alpha=0.7)
        each.plot(times, curve, color="black", linewidth=0.8)
        each.set_xlim(*extent[:2])
        each.set_ylim(*extent[2:])
        label = "" if names is None else names[row]
        each.set_ylabel(f"{label} ({unit})" if label and unit else label or unit, rotation=0, ha="right", va="center")
        each.tick_params(labelsize=6)
    axes[-1].set_xlabel("samples" if rate is None else "seconds")
    figure.colorbar(axes[-1].images[0], ax=axes, label="evidence")
    return figure


def spectrogram_figure(
    spectrogram: np.ndarray,
    mask: np.ndarray,
    *,
    seconds_a_frame: float | None = None,
    frequencies: np.ndarray | None = None,
    start: float = 0.0,
    cmap: str = "magma",
) -> Figure:
    """A matplotlib figure of a spectrogram, and of the same with its map over it.

    spectrogram, mask: (frequencies, time), low frequencies first, the mask in [0, 1]; those of models that take (time,
    frequencies) transposed. seconds_a_frame: the hop over the rate; the axis is then in seconds, from `start` on, else
    in frames. frequencies: the hertz of each row, in any distances (`mel_frequencies`), else the axis has rows.
    Raises ValueError for other shapes, maps outside [0, 1] and another number of frequencies.
    """
    levels, heat = np.asarray(spectrogram), np.asarray(mask)
    if levels.ndim != 2 or heat.shape != levels.shape:
        raise ValueError(
            f"the spectrogram has shape {levels.shape}, the mask {heat.shape}: expected (frequencies, time)"
        )
    check_range(heat, "mask")
    if frequencies is not None and len(frequencies) != len(levels):
        raise ValueError(f"{len(frequencies)} frequencies for {len(levels)} rows")
    figure, axes = _figure(2, 6.0)
    step = 1.0 if seconds_a_frame is None else seconds_a_frame
    extent = (start, start + step * levels.shape[1], -0.5, len(levels) - 0.5)
    how: dict[str, Any] = {"aspect": "auto", "origin": "lower", "extent": extent}
    for each in axes:
        each.imshow(levels, cmap="gray", **how)
        _name_frequencies(each, frequencies, len(levels))
    drawn = axes[1].imshow(heat, cmap=cmap, vmin=0, vmax=1, alpha=0.6, **how)
    axes[1].set_xlabel("frames" if seconds_a_frame is None else "seconds")
    figure.colorbar(drawn, ax=axes, label="evidence")
    return figure


def mel_frequencies(count: int, lowest: float, highest: float) -> np.ndarray:
    """The hertz (count,) of the centres of mel filters, by HTK's scale, 2595 log10(1 + f / 700): torchaudio's default.

    >>> mel_frequencies(3, 0, 8000).round()
    array([ 614., 1768., 3934.])
    """
    first, last = (2595 * math.log10(1 + hertz / 700) for hertz in (lowest, highest))
    mels = np.linspace(first, last, count + 2)[1:-1]
    return np.asarray(700 * (10 ** (mels / 2595) - 1))


def _name_frequencies(axes: Any, frequencies: np.ndarray | None, rows: int) -> None:
    axes.set_ylabel("rows" if frequencies is None else "hertz")
    if frequencies is not None:
        ticks = np.unique(np.linspace(0, rows - 1, _TICKS).round().astype(int))
        axes.set_yticks(ticks, [f"{frequencies[tick]:.0f}" for tick in ticks])


def _figure(rows: int, height: float) -> tuple[Figure, Any]:
    with needing("matplotlib", "figures"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    figure = Figure(figsize=(10, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
