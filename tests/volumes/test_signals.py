"""Figures of signals and spectrograms: what lies where on axes in seconds and hertz."""

import numpy as np
import pytest

from pytorch_grad_cam.volumes.signals import ECG_LEADS, mel_frequencies, signal_figure, spectrogram_figure

RNG = np.random.default_rng(0)


def coloured(axes):
    """The values of the map that is drawn over axes, and where it lies."""
    image = axes.images[-1]
    return np.asarray(image.get_array()), image.get_extent()


def test_leads_of_an_ecg_have_names_and_seconds():
    signal, heat = RNG.normal(size=(12, 500)), np.linspace(0, 1, 500)
    figure = signal_figure(signal, heat, rate=250, names=ECG_LEADS, unit="mV", start=2)
    leads = figure.axes[:12]
    assert [axes.get_ylabel() for axes in leads] == [f"{name} (mV)" for name in ECG_LEADS]
    assert leads[-1].get_xlabel() == "seconds"
    for axes, curve in zip(leads, signal, strict=True):
        times, values = axes.lines[0].get_data()
        np.testing.assert_allclose(times, 2 + np.arange(500) / 250)
        np.testing.assert_array_equal(values, curve)
        colours, extent = coloured(axes)
        np.testing.assert_array_equal(colours[0], heat)
        assert extent[:2] == pytest.approx((2 - 0.002, 4 - 0.002))
        assert axes.get_xlim() == pytest.approx(extent[:2])


def test_each_electrode_may_have_a_map():
    signal, heat = RNG.normal(size=(3, 40)), RNG.random((3, 40))
    figure = signal_figure(signal, heat)
    for row, axes in enumerate(figure.axes[:3]):
        np.testing.assert_array_equal(coloured(axes)[0][0], heat[row])
    assert figure.axes[2].get_xlabel() == "samples"


def test_a_waveform_of_one_channel():
    figure = signal_figure(np.zeros(30), np.ones(30), rate=16000)
    assert len(figure.axes) == 2
    assert figure.axes[0].get_ylim() == (-1, 1)


def test_a_spectrogram_has_seconds_and_hertz():
    levels, heat = RNG.normal(size=(64, 101)), RNG.random((64, 101))
    hertz = mel_frequencies(64, 0, 8000)
    figure = spectrogram_figure(levels, heat, seconds_a_frame=0.01, frequencies=hertz)
    plain, overlaid = figure.axes[:2]
    assert (overlaid.get_xlabel(), overlaid.get_ylabel()) == ("seconds", "hertz")
    for axes in (plain, overlaid):
        np.testing.assert_array_equal(np.asarray(axes.images[0].get_array()), levels)
        shown = [(row, label.get_text()) for row, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)]
        assert shown[0] == (0, f"{hertz[0]:.0f}")
        assert shown[-1] == (63, f"{hertz[63]:.0f}")
    colours, extent = coloured(overlaid)
    np.testing.assert_array_equal(colours, heat)
    assert extent == pytest.approx((0, 1.01, -0.5, 63.5))
    assert overlaid.images[-1].origin == "lower"
    assert len(plain.images) == 1


def test_a_spectrogram_without_units():
    figure = spectrogram_figure(np.zeros((4, 5)), np.zeros((4, 5)))
    assert (figure.axes[1].get_xlabel(), figure.axes[1].get_ylabel()) == ("frames", "rows")


def test_mel_filters_are_even_on_htks_scale():
    hertz = mel_frequencies(40, 20, 7600)
    mels = 2595 * np.log10(1 + np.array([20, *hertz, 7600]) / 700)
    np.testing.assert_allclose(np.diff(mels), np.diff(mels)[0])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: signal_figure(np.zeros((2, 9)), np.zeros(8)), r"the signal has shape \(2, 9\), the mask \(8,\)"),
        (lambda: signal_figure(np.zeros((2, 9)), np.zeros(9), names=["a"]), "1 names for 2 channels"),
        (lambda: signal_figure(np.zeros(9), np.full(9, 2.0)), r"expected \[0, 1\]"),
        (lambda: spectrogram_figure(np.zeros((4, 5)), np.zeros((5, 4))), r"the mask \(5, 4\): expected \(frequencies"),
        (lambda: spectrogram_figure(np.zeros((4, 5)), np.full((4, 5), -1.0)), r"expected \[0, 1\]"),
        (lambda: spectrogram_figure(*np.zeros((2, 4, 5)), frequencies=np.zeros(3)), "3 frequencies for 4 rows"),
    ],
)
def test_what_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()
