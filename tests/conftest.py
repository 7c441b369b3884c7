import pytest

import pytorch_grad_cam
from pytorch_grad_cam import BaseCAM
from pytorch_grad_cam.demo import load_digits_net

METHODS = [
    method
    for name in pytorch_grad_cam.__all__
    if isinstance(method := getattr(pytorch_grad_cam, name), type) and issubclass(method, BaseCAM)
]
METHODS.remove(BaseCAM)


def pytest_generate_tests(metafunc):
    """A test with an argument `method` runs for every method that the package exports."""
    if "method" in metafunc.fixturenames:
        metafunc.parametrize("method", METHODS, ids=lambda method: method.__name__)


@pytest.fixture(scope="session")
def digits_net():
    return load_digits_net()
