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

SQUARE = "its windows are square, the test's transform is not"
OF_WINDOWS = "smoothes the maps of its windows, see test_meta"
# The tests that do not apply to a method, and why. RandomCAM with a seed is tested in test_perturbation.
EXCEPTIONS = {
    "RandomCAM": {
        "test_result": "its weights may leave no positive evidence",
        "test_no_warning_without_reason": "its weights may leave no positive evidence",
        **dict.fromkeys(
            [
                "test_as_tensor",
                "test_augmentation_that_changes_the_size",
                "test_augmentations_explain_the_class_of_the_clean_image",
                "test_autocast",
                "test_batch_is_singles",
                "test_deterministic",
                "test_flipping_and_scaling_smoothes",
                "test_layer_by_name",
                "test_layer_found_by_itself",
                "test_layout_of_a_given_layer_is_found",
                "test_map_at_any_scale_of_the_score",
                "test_models_with_several_inputs",
                "test_model_with_hooks_can_be_pickled_and_copied",
                "test_old_names_and_orders",
                "test_own_augmentations",
                "test_permuting_the_images_permutes_the_maps",
                "test_precision",
                "test_precision_with_trained_weights",
                "test_default_dtype_of_the_process",
                "test_input_that_is_not_contiguous",
                "test_checkpointed_blocks",
                "test_layer_within_a_checkpointed_block",
                "test_scores_are_found_in_outputs",
                "test_same_map_for_frozen_inplace_and_no_grad",
                "test_same_map_when_the_model_runs_its_backbone_under_no_grad",
                "test_sequential_is_one_layer",
                "test_several_layers_are_averaged_in_any_order",
                "test_threads_share_one_cam_and_one_model",
            ],
            "draws new weights for each image and call",
        ),
    },
    "FullGrad": {
        "test_layer_found_by_itself": "uses the biases of all layers",
        "test_layout_of_a_given_layer_is_found": "uses the biases of all layers",
        "test_several_layers_are_averaged_in_any_order": "uses the biases of all layers",
    },
    "RefineCAM": {"test_several_layers_are_averaged_in_any_order": "multiplies layers"},
    "SESS": {
        "test_precision_with_trained_weights": "122 windows take a quarter of a minute",
        "test_several_layers_are_averaged_in_any_order": "averages the layers of each window",
        "test_flipping_and_scaling_smoothes": OF_WINDOWS,
        "test_own_augmentations": OF_WINDOWS,
        "test_augmentation_that_changes_the_size": OF_WINDOWS,
        "test_layer_found_by_itself": SQUARE,
        "test_tokens": SQUARE,
        "test_layout_of_a_given_layer_is_found": SQUARE,
    },
    "FEM": {"test_tokens": "none of 12 tokens is two deviations above a positive mean"},
}


def pytest_generate_tests(metafunc):
    """A test with an argument `method` runs for every method that the package exports."""
    if "method" in metafunc.fixturenames:
        test = metafunc.function.__name__
        methods = [method for method in METHODS if test not in EXCEPTIONS.get(method.__name__, {})]
        metafunc.parametrize("method", methods, ids=lambda method: method.__name__)


@pytest.fixture(scope="session")
def digits_net():
    return load_digits_net()
