import gc

import pytest
from every_method import ATTENTION_METHODS, COSTLY, METHODS, excepted, named

from pytorch_grad_cam import RISE
from pytorch_grad_cam.demo import load_digits_net


def pytest_generate_tests(metafunc):
    """A test with an argument `method` runs for every method that the package exports, but those that it excepts."""
    without = [name for mark in metafunc.definition.iter_markers("except_for") for name in excepted(mark)]
    slow = [name for mark in metafunc.definition.iter_markers("slow_for") for name in named(mark)]
    if "method" in metafunc.fixturenames:
        methods = [
            pytest.param(method, marks=pytest.mark.slow if method.__name__ in (*slow, *COSTLY) else ())
            for method in METHODS
            if method.__name__ not in without
        ]
        metafunc.parametrize("method", methods, ids=lambda method: method.__name__)
    elif "attention_method" in metafunc.fixturenames:
        metafunc.parametrize("attention_method", ATTENTION_METHODS, ids=lambda method: method.__name__)
    elif without or slow:
        raise ValueError(f"{metafunc.function.__name__} has no argument `method`, so no method can be named for it")


@pytest.fixture(scope="session")
def digits_net():
    return load_digits_net()


@pytest.fixture
def own_garbage():
    """A search for garbage goes through what the test makes, not through all of torch, which takes half a second."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def rise_takes_a_tenth_of_its_masks(monkeypatch):
    """All at once: what holds for any number of masks holds for these, and small networks take many images."""
    monkeypatch.setitem(RISE.__init__.__kwdefaults__, "masks", 100)
    monkeypatch.setattr(RISE, "batch_size", 100)
