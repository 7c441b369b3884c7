"""Many forwards in the way that a short measurement finds fastest."""

import numpy as np
import pytest
import torch
from nets import convolutional, images
from torch import nn

from pytorch_grad_cam import ScoreCAM
from pytorch_grad_cam.engine import fastest_way
from pytorch_grad_cam.engine.fastest_way import Way, in_fastest_chunks

X = torch.zeros(1, 3, 8, 8)


class Clock:
    """Time passes as runs say: seconds(images, channels_last) each. ways: of the runs, in their order."""

    def __init__(self, seconds):
        self.now, self.seconds, self.ways = 0.0, seconds, []

    def run(self, start, stop, channels_last):
        self.now += self.seconds(stop - start, channels_last)
        self.ways.append(Way(stop - start, channels_last))
        return torch.arange(start, stop)


@pytest.fixture
def clocked(monkeypatch):
    def asked(seconds, total=600, model=None, x=X):
        clock = Clock(seconds)
        monkeypatch.setattr(fastest_way, "perf_counter", lambda: clock.now)
        found = in_fastest_chunks(model or nn.Identity(), clock.run, total, x, "tests")
        assert found.tolist() == list(range(total))
        return clock.ways

    return asked


@pytest.mark.parametrize("fastest", [Way(8, True), Way(8, False), Way(4, True), Way(32, False), Way(16, True)])
def test_most_is_done_in_the_fastest_way(clocked, fastest):
    def seconds(images, channels_last):
        return images * (1 + (channels_last != fastest.channels_last) + abs(images - fastest.images) / 10)

    ways = clocked(seconds)
    assert {Way(8, True), Way(8, False), Way(4, fastest.channels_last), Way(16, fastest.channels_last)} < {*ways}
    assert ways[10:-1] == [fastest] * len(ways[10:-1])


def test_what_is_hardly_faster_is_not_taken(clocked):
    ways = clocked(lambda images, channels_last: images * (1 if images == 8 and channels_last else 0.96))
    assert ways[10:] == [Way(8, True)] * len(ways[10:])


def test_it_is_remembered_for_the_model_and_the_size_of_its_images(clocked):
    def seconds(images, channels_last):
        return images * (1 if images == 32 else 2)

    model = nn.Identity()
    assert len({*clocked(seconds, model=model)}) > 4
    assert {*clocked(seconds, total=640, model=model)} == {Way(32, False)}
    assert {*clocked(seconds, total=64, model=model)} == {Way(32, False)}
    assert len({*clocked(seconds, model=model, x=torch.zeros(1, 3, 9, 9))}) > 4


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.to(memory_format=torch.channels_last),
        nn.Module.double,
        lambda model: model.append(nn.ReLU()),
    ],
)
def test_it_is_forgotten_when_the_model_changes(clocked, change):
    def seconds(images, channels_last):
        return images * (1 if images == 32 else 2)

    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    clocked(seconds, model=model)
    assert {*clocked(seconds, model=model)} == {Way(32, False), Way(24, False)}
    change(model)
    assert len({*clocked(seconds, model=model)}) > 4


def test_little_work_and_determinism_are_done_as_usual(clocked):
    def seconds(images, channels_last):
        return images * (1 if images == 32 else 2)

    assert {*clocked(seconds, total=480)} == {Way(8, True)}
    torch.use_deterministic_algorithms(True)
    try:
        assert {*clocked(seconds, total=4800)} == {Way(8, True)}
    finally:
        torch.use_deterministic_algorithms(False)


def test_signals_have_one_layout(clocked):
    ways = clocked(lambda images, channels_last: images, x=torch.zeros(1, 3, 8))
    assert not any(way.channels_last for way in ways)


def test_a_way_that_takes_too_much_memory_is_not_taken(monkeypatch):
    def run(start, stop, channels_last):
        if stop - start > 8:
            raise torch.cuda.OutOfMemoryError
        return torch.arange(start, stop)

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    assert in_fastest_chunks(nn.Identity(), run, 600, X, "tests").tolist() == list(range(600))


def test_maps_are_the_same_in_every_way(monkeypatch):
    model, x = convolutional(), images(count=70)
    expected = ScoreCAM(model, "last")
    expected.batch_size = 8
    for seconds in (lambda way: 1 / way.images, lambda way: way.images):
        monkeypatch.setattr(fastest_way._Trial, "_best", lambda self, seconds=seconds: min(self._seconds, key=seconds))
        fastest_way._known.clear()
        np.testing.assert_allclose(ScoreCAM(model, "last")(x, 1), expected(x, 1), atol=1e-5)
