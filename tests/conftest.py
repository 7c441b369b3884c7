import pytest

import pytorch_grad_cam
from pytorch_grad_cam import RISE, BaseCAM, MetaCAM
from pytorch_grad_cam.demo import load_digits_net

METHODS = [
    method
    for name in pytorch_grad_cam.__all__
    if isinstance(method := getattr(pytorch_grad_cam, name), type) and issubclass(method, BaseCAM | MetaCAM)
]
METHODS.remove(BaseCAM)
METHODS.remove(MetaCAM)


def named(mark) -> set[str]:
    """The methods that a marker names."""
    names = {method.__name__ for method in METHODS}
    if not mark.args:
        raise ValueError(f"{mark.name} takes names of methods")
    for name in mark.args:
        if name not in names:
            raise ValueError(f"{mark.name} names {name!r}, which is no method: {sorted(names)}")
    return set(mark.args)


def excepted(mark) -> set[str]:
    """The methods that `@pytest.mark.except_for("RandomCAM", ..., reason="why")` takes away from a test."""
    if mark.kwargs.keys() != {"reason"}:
        raise ValueError(f"except_for takes names of methods and the keyword `reason`, not {mark.kwargs}")
    return named(mark)


def pytest_generate_tests(metafunc):
    """A test with an argument `method` runs for every method that the package exports, but those that it excepts."""
    without = [name for mark in metafunc.definition.iter_markers("except_for") for name in excepted(mark)]
    slow = [name for mark in metafunc.definition.iter_markers("slow_for") for name in named(mark)]
    if "method" in metafunc.fixturenames:
        methods = [
            pytest.param(method, marks=pytest.mark.slow if method.__name__ in slow else ())
            for method in METHODS
            if method.__name__ not in without
        ]
        metafunc.parametrize("method", methods, ids=lambda method: method.__name__)
    elif without or slow:
        raise ValueError(f"{metafunc.function.__name__} has no argument `method`, so no method can be named for it")


@pytest.fixture(scope="session")
def digits_net():
    return load_digits_net()


@pytest.fixture(autouse=True)
def small_networks_take_many_masked_images(monkeypatch):
    monkeypatch.setattr(RISE, "batch_size", 250)
