import pytest

import pytorch_grad_cam
from pytorch_grad_cam import BaseCAM, MetaCAM
from pytorch_grad_cam.demo import load_digits_net

METHODS = [
    method
    for name in pytorch_grad_cam.__all__
    if isinstance(method := getattr(pytorch_grad_cam, name), type) and issubclass(method, BaseCAM | MetaCAM)
]
METHODS.remove(BaseCAM)
METHODS.remove(MetaCAM)


def exceptions(marks) -> dict[str, str]:
    """The methods that `@pytest.mark.except_for("RandomCAM", ..., reason="why")` takes away from a test, and why."""
    reasons: dict[str, str] = {}
    names = {method.__name__ for method in METHODS}
    for mark in marks:
        if not mark.args or mark.kwargs.keys() != {"reason"}:
            raise ValueError(
                f"except_for takes names of methods and the keyword `reason`, not {mark.args, mark.kwargs}"
            )
        for name in mark.args:
            if name not in names:
                raise ValueError(f"except_for names {name!r}, which is no method: {sorted(names)}")
            if name in reasons:
                raise ValueError(f"except_for names {name} twice")
            reasons[name] = mark.kwargs["reason"]
    return reasons


def pytest_generate_tests(metafunc):
    """A test with an argument `method` runs for every method that the package exports, but those that it excepts."""
    excepted = exceptions(metafunc.definition.iter_markers("except_for"))
    if "method" in metafunc.fixturenames:
        methods = [method for method in METHODS if method.__name__ not in excepted]
        metafunc.parametrize("method", methods, ids=lambda method: method.__name__)
    elif excepted:
        raise ValueError(f"{metafunc.function.__name__} has no argument `method`, so it can make no exception")


@pytest.fixture(scope="session")
def digits_net():
    return load_digits_net()
