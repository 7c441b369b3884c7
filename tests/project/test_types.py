"""What a type checker and an editor know of the public classes: right calls have no error, each wrong one has."""

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from every_method import METHODS

import pytorch_grad_cam
from pytorch_grad_cam import BaseCAM, FinerCAM, GradCAM, MetaCAM, explain
from pytorch_grad_cam.base_cam import CamOptions
from pytorch_grad_cam.explanations.typed import Options

ROOT = Path(__file__).parents[2]
SURFACE = json.loads((ROOT / "tests/data/grad-cam-1.5.7-surface.json").read_text())
CONSTRUCTED = sorted({*METHODS, BaseCAM, MetaCAM}, key=lambda method: method.__name__)

# Up to 2.2 `np.ndarray` without its parameters is an error; 2.3 takes `tolist` for a number.
needs_typed_numpy = pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) < "2.4.0", reason="NumPy's types are others")

RIGHT = """
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL.Image import Image
from torch import nn
from torch.utils.data import DataLoader

from pytorch_grad_cam import (
    FEM, KPCA_CAM, SESS, AblationCAM, AblationLayerVit, BaseCAM, DeepFeatureFactorization, EigenCAM, Explanation,
    FinerCAM, FullGrad, GradCAM, GuidedBackpropReLUModel, LayerCAM, RandomCAM, RefineCAM, ScoreCAM, compare, explain,
    load_classifier,
)
from pytorch_grad_cam.engine.layer_run import LayerRun
from pytorch_grad_cam.explanations.explanation import Panel
from pytorch_grad_cam.metrics.road import ROADCombined
from pytorch_grad_cam.utils.image import show_cam_on_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget, ClassifierOutputTarget
from pytorch_grad_cam.utils.reshape_transforms import vit_reshape_transform


class Own(BaseCAM):
    uses_gradients = False

    def weigh(self, run: LayerRun) -> torch.Tensor:
        return run.activations.mean((2, 3))


class OwnMap(BaseCAM):
    def evidence(self, run: LayerRun) -> torch.Tensor:
        return run.activations.sum(1)


def constructors(net: nn.Module) -> None:
    GradCAM(net)
    GradCAM(net, "layer4", detach=False)
    GradCAM(net, ["layer4", net], vit_reshape_transform)
    GradCAM(net, [net], reshape_transform=partial(vit_reshape_transform, height=2, width=2), uses_gradients=None)
    GradCAM(net, output_transform=lambda output: output["logits"], spatial_from="image", call_index=-1)
    KPCA_CAM(net, kernel="rbf", align="receptive_field")
    FEM(net, k=1.5, align="cell")
    RandomCAM(net, seed=3)
    ScoreCAM(net, ["layer4"], share_of_energy=0.5, call_index=1)
    AblationCAM(net, "layer4", None, AblationLayerVit(), 16, 0.5, spatial_from=0)
    FullGrad(net, align="receptive_field")
    SESS(net, "layer4", base_method=LayerCAM, num_scales=2, pool="max", align="cell")
    RefineCAM(net, ["layer3", "layer4"], base_method=GradCAM, detach=True)
    FinerCAM(net, base_method=partial(FEM, k=1))


def calls(net: nn.Module, x: torch.Tensor, as_tensor: bool) -> None:
    maps: np.ndarray = GradCAM(net)(x)
    tensor: torch.Tensor = GradCAM(net)(x, as_tensor=True)
    either: np.ndarray | torch.Tensor = GradCAM(net)(x, as_tensor=as_tensor)
    by_tuple: np.ndarray = EigenCAM(net, spatial_from=1)((x, x), aug_smooth=True, eigen_smooth=True)
    by_name: torch.Tensor = GradCAM(net)({"image": x, "mask": None}, as_tensor=True)
    of_own: torch.Tensor = Own(net, align="cell")(x, as_tensor=True)
    of_own_map: np.ndarray = OwnMap(net)(x)
    refined: np.ndarray = RefineCAM(net)(x, 3, eigen_smooth=True)
    enhanced: torch.Tensor = SESS(net)(x, [3, 5], as_tensor=True)
    finer: np.ndarray = FinerCAM(net)(x, alpha=0.5, comparison_categories=[1, 2], target_idx=3)
    finer_tensor: torch.Tensor = FinerCAM(net)(x, [3], True, 0.5, (1,), aug_smooth=True, as_tensor=True)
    either = FinerCAM(net)(x, as_tensor=as_tensor)
    either = SESS(net)(x, as_tensor=as_tensor)
    guided: np.ndarray = GuidedBackpropReLUModel(net, "cpu")(x, 3)
    factors = DeepFeatureFactorization(net, "layer4", align="receptive_field")(x, 4)
    scores: np.ndarray = ROADCombined(percentiles=[20, 80])(x, maps, [3], net)
    picture: np.ndarray = show_cam_on_image(maps[0], maps[0], use_rgb=True)


def targets(net: nn.Module, x: torch.Tensor) -> None:
    with GradCAM(net) as cam:
        cam(x, None)
        cam(x, targets=3)
        cam(x, np.int64(3))
        cam(x, [3, np.int64(5)])
        cam(x, (3, ClassifierOutputTarget(5)))
        cam(x, [[3, 5], [3, ClassifierOutputTarget(5)]])
        cam(x, torch.tensor([3, 5]))
        cam(x, np.array([[3, 5]]))
        cam(x, ClassifierOutputTarget(3))
        cam(x, [ClassifierOutputSoftmaxTarget(3)])
        cam(x, lambda output: output[0] - output[1])
        classes = [3, 5]
        cam(x, classes)
        listed = [ClassifierOutputTarget(each) for each in classes]
        cam(x, listed)


def within(net: nn.Module) -> None:
    with KPCA_CAM(net) as cam, SESS(net) as enhanced, DeepFeatureFactorization(net, net) as factorisation:
        kernel: str = cam.kernel
        enhanced_is: SESS = enhanced
        cam_is: KPCA_CAM = cam
        factorisation_is: DeepFeatureFactorization = factorisation


def in_one_call(
    net: nn.Module, x: torch.Tensor, pixels: np.ndarray, photo: Image, loader: DataLoader[torch.Tensor]
) -> None:
    explanation: Explanation = explain(net, x, methods=[GradCAM, "layercam"], targets=["cat", 3], align="cell")
    of_photo: Explanation = explain(net, photo, layers=["layer3", ["layer3", net]], top=2, probabilities="sigmoid")
    of_bytes: Explanation = explain(net, b"...", partial(FinerCAM, base_method=LayerCAM), aug_smooth=True)
    of_inputs: Explanation = explain(net, {"image": x}, targets={"7 less 5": lambda scores: scores[7] - scores[5]})
    of_two: Explanation = explain(net, (x, x), "gradcam", 3, spatial_from=1)
    of_pixels: Explanation = explain(net, pixels, preprocess=lambda image: x, categories=["ant", "bee"], truth="bee")
    explain(load_classifier("resnet18"), "cat.png", "all", top=2)
    explain("resnet18", Path("cat.png"), "scorecam", weights="none", share_of_energy=0.9).save("folder")
    of_list: Iterator[Explanation] = explain(net, [photo, pixels], batch_size=8, workers=2)
    of_loader: Iterator[Explanation] = explain(net, loader, signed=True, top=2)
    of_folder: Iterator[Explanation] = explain(net, "photos", output_dir="maps", save=["map"], truth={"a.jpg": 3})
    panel: Panel = explanation[0]
    some: Explanation = explanation["layer4"]
    figure: Figure = compare(net, x, targets=3, cmap="magma", alpha=0.4, title="one")
    compare({"one": net, "other": "resnet18"}, "cat.png", ["gradcam"], layers="layer4", preprocess=lambda image: x)
"""

WRONG = [
    'GradCAM(net, alig="cell")',
    'GradCAM(net, align="cells")',
    "GradCAM(net, layers=3)",
    "GradCAM(net, 3)",
    "GradCAM(net, [3])",
    "GradCAM()",
    'GradCAM("resnet18")',
    "GradCAM(net, reshape_transform=3)",
    "GradCAM(net, detach=None)",
    "GradCAM(net, call_index=0.5)",
    'ScoreCAM(net, alig="cell")',
    'ScoreCAM(net, share_of_energy="all")',
    "KPCA_CAM(net, kernel='rfb')",
    "KPCA_CAM(net, gama=1.0)",
    "FEM(net, k='2')",
    "RandomCAM(net, seed=0.5)",
    "AblationCAM(net, ablation_layer=net)",
    "AblationCAM(net, ratio=0.5)",
    'FullGrad(net, align="cells")',
    "SESS(net, nothing=1)",
    "SESS(net, pool='sum')",
    'RefineCAM(net, alig="cell")',
    "RefineCAM(net, base_method=3)",
    'FinerCAM(net, align="cells")',
    "GradCAM(net)(x, as_tensor=1)",
    "GradCAM(net)(x, targets=object())",
    "GradCAM(net)(x, targets='cat')",
    "GradCAM(net)(x, [0.5])",
    "GradCAM(net)(x, target=3)",
    "GradCAM(net)(x, None, False, False, True)",
    "GradCAM(net)()",
    "maps: np.ndarray = GradCAM(net)(x, as_tensor=True)",
    "tensor: torch.Tensor = GradCAM(net)(x)",
    "of_sess: torch.Tensor = SESS(net)(x)",
    "of_finer: torch.Tensor = FinerCAM(net)(x, alpha=0.5)",
    "SESS(net)(x, alpha=0.5)",
    "RefineCAM(net)(x, targets=object())",
    "FinerCAM(net)(x, alpa=0.5)",
    "FinerCAM(net)(x, comparison_categories=1)",
    "DeepFeatureFactorization(net, 3)",
    "ClassifierOutputTarget('cat')",
    "explain(net)",
    "explain(3, x)",
    "explain(net, 3)",
    "explain(net, None)",
    "explain(net, photo, GradCAM(net))",
    "explain(net, photo, [3])",
    "explain(net, photo, method='gradcam')",
    "explain(net, photo, targets=0.5)",
    "explain(net, photo, targets=[[3]])",
    "explain(net, photo, layers=3)",
    "explain(net, photo, align='cells')",
    "explain(net, photo, top='2')",
    "explain(net, photo, preprocess=3)",
    "explain(net, photo, categories=3)",
    "explain(net, photo, probabilities=0.5)",
    "explain(net, photo, share_of_enrgy=0.9)",
    "explain(net, photo, kernel='rfb')",
    "explain(net, photo, truth=[0.5])",
    "one: Explanation = explain(net, [photo])",
    "several: Iterator[Explanation] = explain(net, photo)",
    "written: Explanation = explain(net, 'photos', output_dir='maps')",
    "explain(net, photo).mapz",
    "explain(net, x).mapz",
    "explain(net, photo)[0.5]",
    "compare(net, photo, cmap=3)",
    "compare({3: net}, photo)",
    "picture: np.ndarray = compare(net, photo)",
]
NEXT_LINE = "\n    "
OVERRIDE = "def weigh(self, run: LayerRun) -> int:"
SOURCE = f"""{RIGHT}

def wrong(net: nn.Module, x: torch.Tensor, photo: Image) -> None:
    {NEXT_LINE.join(WRONG)}


class WrongWeights(BaseCAM):
    {OVERRIDE}
        return 1
"""


@pytest.fixture(scope="module")
def lines_with_errors(tmp_path_factory):
    """The errors that mypy finds, by the line that they are in."""
    file = tmp_path_factory.mktemp("types") / "calls.py"
    file.write_text(SOURCE)
    lines, errors = SOURCE.splitlines(), {}
    for number, error in re.findall(r"^.*calls\.py:(\d+): error: (.*)$", mypy(file), re.MULTILINE):
        errors.setdefault(lines[int(number) - 1].strip(), []).append(error)
    return errors


def mypy(*files):
    finished = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", *map(str, files)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode in (0, 1), finished.stdout + finished.stderr
    return finished.stdout


@needs_typed_numpy
@pytest.mark.slow
@pytest.mark.style
def test_right_calls_have_no_error(lines_with_errors):
    assert not {line: errors for line, errors in lines_with_errors.items() if line not in (*WRONG, OVERRIDE)}


@needs_typed_numpy
@pytest.mark.slow
@pytest.mark.style
@pytest.mark.parametrize("call", [*WRONG, OVERRIDE])
def test_a_wrong_call_has_an_error(lines_with_errors, call):
    """One; of a keyword that no overload has mypy says that it is unexpected, and once more that none matches."""
    errors = lines_with_errors.get(call, [])
    assert len([error for error in errors if not error.startswith("No overload variant") or len(errors) == 1]) == 1


@needs_typed_numpy
@pytest.mark.slow
@pytest.mark.style
def test_every_name_of_1_5_can_be_imported(tmp_path):
    """With `--strict` a name that a module only imports for itself is an error in the user's code."""
    imports = [f"from {module} import {name} as _" for module, names in SURFACE.items() for name in names]
    file = tmp_path / "names.py"
    file.write_text("\n".join(f"{line}{number}" for number, line in enumerate(imports)))
    assert "error" not in mypy(file)


@pytest.mark.parametrize("made", CONSTRUCTED)
def test_every_parameter_of_a_constructor_is_named_and_typed(made):
    parameters = list(inspect.signature(made.__init__).parameters.values())[1:]
    assert [parameter.name for parameter in parameters[:3]] == ["model", "target_layers", "reshape_transform"]
    for parameter in parameters:
        assert parameter.annotation is not parameter.empty
        assert parameter.kind is not parameter.VAR_POSITIONAL
        if parameter.kind is parameter.VAR_KEYWORD:
            assert parameter.annotation == "Unpack[CamOptions]"


def test_the_options_of_subclasses_are_those_of_base_cam():
    of_base = dict(list(inspect.signature(BaseCAM.__init__).parameters.items())[4:])
    declared = {name: getattr(kind, "__forward_arg__", kind) for name, kind in CamOptions.__annotations__.items()}
    assert declared == {name: parameter.annotation for name, parameter in of_base.items()}


def test_the_keywords_of_explain_are_its_own_and_those_of_the_methods():
    first = ("model", "image", "methods", "targets", "layers", "output_dir", "options")
    own = {name: each.annotation for name, each in inspect.signature(explain).parameters.items() if name not in first}
    of_methods = {
        name: each.annotation
        for method in METHODS
        for name, each in list(inspect.signature(method.__init__).parameters.items())[3:]
        if name != "options"
    }
    assert {*Options.__annotations__} == {*own, *of_methods}
    declared = {name: getattr(kind, "__forward_arg__", kind) for name, kind in Options.__annotations__.items()}
    others = ("base_method", "reshape_transform", "seed")  # which a caller may say more of than a constructor asks for
    expected = {name: kind for name, kind in {**of_methods, **own}.items() if name not in others}
    assert {name: kind for name, kind in declared.items() if name in expected} == expected


def test_an_editor_sees_named_parameters():
    assert {"input_tensor", "targets", "aug_smooth", "eigen_smooth", "as_tensor"} < parameters_of(GradCAM.__call__)
    assert {"input_tensor", "targets", "eigen_smooth", "aug_smooth"} < parameters_of(MetaCAM.forward)
    assert {"alpha", "comparison_categories", "target_idx"} < parameters_of(FinerCAM.explain)


def parameters_of(function):
    return set(inspect.signature(function).parameters)


def test_the_package_says_that_it_is_typed():
    assert (Path(pytorch_grad_cam.__file__).parent / "py.typed").exists()
