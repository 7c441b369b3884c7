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

IGNORES_LAYERS = "uses the biases of all layers"
DRAWS_ANEW = "draws new weights for each image and call"
OWN_AGGREGATION = "does not average layers"
# The tests that do not apply to a method, and why.
EXCEPTIONS = {
    "test_result": {"RandomCAM": "its weights may leave no positive evidence"},
    "test_layer_found_by_itself": {
        "FullGrad": IGNORES_LAYERS,
        "RandomCAM": DRAWS_ANEW,
        "SESS": "its windows are square, the test's transform is not",
    },
    "test_tokens": {
        "FEM": "none of 12 tokens is two deviations above a positive mean",
        "SESS": "its windows are square, the test's transform is not",
    },
    "test_old_names_and_orders": {"RandomCAM": DRAWS_ANEW},
    "test_map_at_any_scale_of_the_score": {"RandomCAM": DRAWS_ANEW},
    "test_threads_share_one_cam_and_one_model": {"RandomCAM": DRAWS_ANEW},
    "test_batch_is_singles": {"RandomCAM": DRAWS_ANEW},
    "test_permuting_the_images_permutes_the_maps": {"RandomCAM": DRAWS_ANEW},
    "test_flipping_and_scaling_smoothes": {
        "RandomCAM": DRAWS_ANEW,
        "SESS": "smoothes the maps of its windows, see test_meta",
    },
    "test_own_augmentations": {"RandomCAM": DRAWS_ANEW, "SESS": "smoothes the maps of its windows, see test_meta"},
    "test_augmentation_that_changes_the_size": {
        "RandomCAM": DRAWS_ANEW,
        "SESS": "smoothes the maps of its windows, see test_meta",
    },
    "test_several_layers_are_averaged_in_any_order": {
        "FullGrad": IGNORES_LAYERS,
        "RandomCAM": DRAWS_ANEW,
        "RefineCAM": OWN_AGGREGATION,
        "SESS": OWN_AGGREGATION,
    },
}


def pytest_generate_tests(metafunc):
    """A test with an argument `method` runs for every method that the package exports."""
    if "method" in metafunc.fixturenames:
        exceptions = EXCEPTIONS.get(metafunc.function.__name__, {})
        methods = [method for method in METHODS if method.__name__ not in exceptions]
        metafunc.parametrize("method", methods, ids=lambda method: method.__name__)


@pytest.fixture(scope="session")
def digits_net():
    return load_digits_net()
