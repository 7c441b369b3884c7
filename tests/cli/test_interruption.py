"""Ctrl-C in the middle of many images."""

import signal

import pytest

from pytorch_grad_cam.cli.interruption import Interruption


class InterruptedWhenForgotten:
    """Python prints what is raised here, and goes on."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)


def done_of(interruption, items):
    """The items that a loop comes to; whether it was interrupted."""
    done = []
    try:
        for number, item in enumerate(interruption.heeded(items)):
            done.append(number)
            item()
    except KeyboardInterrupt:
        return done, True
    return done, False


def nothing():
    pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("interrupt", [InterruptedWhenForgotten, lambda: signal.raise_signal(signal.SIGINT)])
def test_an_interruption_ends_the_work(interrupt):
    with Interruption() as interruption:
        assert done_of(interruption, [nothing, nothing, interrupt, nothing]) == ([0, 1, 2], True)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_interruptions_that_are_ignored_stay_so():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            assert done_of(interruption, [nothing, lambda: signal.raise_signal(signal.SIGINT)]) == ([0, 1], False)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
