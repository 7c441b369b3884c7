"""Each of the 112 public names of grad-cam 1.5.7 is where it was, of the same kind, and takes the same arguments.

`data/grad-cam-1.5.7-surface.json` was read from the released package: names, kinds, arguments of functions and methods.
"""

import importlib
import inspect
import json
from pathlib import Path

import pytest

SURFACE = json.loads((Path(__file__).parents[1] / "data/grad-cam-1.5.7-surface.json").read_text())
NAMES = [(module, name) for module, names in SURFACE.items() for name in names]

# Parts of 1.5.7's own workings.
LEFT_OUT = {
    "pytorch_grad_cam.ablation_cam.AblationCAM": {"save_activation", "assemble_ablation_scores"},
    "pytorch_grad_cam.activations_and_gradients.ActivationsAndGradients": {"save_activation", "save_gradient"},
    "pytorch_grad_cam.fullgrad_cam.FullGrad": {"get_bias_data"},
    "pytorch_grad_cam.guided_backprop.GuidedBackpropReLUModel": {
        "forward",
        "recursive_replace_relu_with_guidedrelu",
        "recursive_replace_guidedrelu_with_relu",
    },
    "pytorch_grad_cam.sess.SESS": {
        "forward_single_image",
        "get_scales",
        "collect_patches",
        "get_target",
        "get_scores",
        "paste_cam",
    },
}
# The layer's module of ablation_cam_multilayer leads to the one AblationLayer; 1.5.7's could not be used at all.
OTHER_ARGUMENTS = {"pytorch_grad_cam.ablation_cam_multilayer"}
# Override points are called by position: 1.5.7's own classes call the third argument targets or target_category.
BY_POSITION = {"get_cam_weights", "get_cam_image", "compute_cam_per_layer", "__exit__"}


def test_the_list_is_complete():
    assert len(SURFACE) == 39
    assert len(NAMES) == 112


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_name(module, name):
    ours, theirs = getattr(importlib.import_module(module), name), SURFACE[module][name]
    kinds = {"class": inspect.isclass, "function": inspect.isfunction, "module": inspect.ismodule, "value": bool}
    assert kinds[theirs["kind"]](ours)
    if theirs["kind"] == "function":
        assert_accepts(ours, theirs["arguments"])
    if module in OTHER_ARGUMENTS:
        return
    for method, arguments in theirs.get("methods", {}).items():
        if method not in LEFT_OUT.get(f"{module}.{name}", ()) and len(arguments) > 1:
            assert_accepts(getattr(ours, method), arguments, by_keyword=method not in BY_POSITION)


def assert_accepts(function, arguments, by_keyword=True):
    signature = inspect.signature(function)
    signature.bind(*arguments)
    if by_keyword:
        bound, named = (["self"], arguments[1:]) if arguments[:1] == ["self"] else ([], arguments)
        signature.bind(*bound, **dict.fromkeys(named))


def test_what_is_left_out_is_not_there():
    for path, methods in LEFT_OUT.items():
        module, _, name = path.rpartition(".")
        own = vars(getattr(importlib.import_module(module), name))
        assert not methods & (own.keys() - {"forward"}), "take it off the list"
