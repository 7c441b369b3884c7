"""Every method, metric and target names its paper, with a link, and can be cited."""

import importlib
import inspect
import pkgutil
import re

import pytest

import pytorch_grad_cam
import pytorch_grad_cam.metrics
from pytorch_grad_cam import DeepFeatureFactorization, GuidedBackpropReLUModel, cite
from pytorch_grad_cam.engine.detections.box_targets import BoxTarget, DetectionTarget
from pytorch_grad_cam.evaluation.metrics import available_metrics
from pytorch_grad_cam.explanations.methods import available_methods
from pytorch_grad_cam.metrics.perturbation_confidence import (
    AveragerAcrossThresholds,
    PerturbationConfidenceMetric,
    Versions,
)
from pytorch_grad_cam.metrics.shared_scores import ScoreMetric
from pytorch_grad_cam.utils import model_targets

METHODS = {*available_methods().values(), DeepFeatureFactorization, GuidedBackpropReLUModel}
_BASES = (PerturbationConfidenceMetric, AveragerAcrossThresholds, Versions, ScoreMetric)


def classes_of(module):
    own = [value for value in vars(module).values() if inspect.isclass(value)]
    return {
        each for each in own if each.__module__.startswith("pytorch_grad_cam") and not each.__name__.startswith("_")
    }


def classes_of_metrics():
    """Those that can be called: a base, a protocol and a named tuple are no metric."""
    names = [found.name for found in pkgutil.iter_modules(pytorch_grad_cam.metrics.__path__)]
    modules = [importlib.import_module(f"pytorch_grad_cam.metrics.{name}") for name in names]
    found = set().union(*({each for each in classes_of(m) if each.__module__ == m.__name__} for m in modules))
    return {each for each in found if each not in _BASES and "__call__" in dir(each) and not issubclass(each, tuple)}


TARGETS = {each for each in classes_of(model_targets) if each.__name__.endswith("Target")} | {
    BoxTarget,
    DetectionTarget,
}
NAMED = sorted(METHODS | classes_of_metrics() | TARGETS, key=lambda each: each.__name__)


@pytest.mark.parametrize("named", NAMED, ids=lambda each: each.__name__)
def test_a_class_names_its_paper_with_a_link(named):
    sites = r"arxiv\.org/abs/\d{4}\.\d{4,5}|doi\.org/10\.\S+|openaccess\.thecvf\.com/\S+|\S*jacobgil\S+"
    assert re.search(rf"^Paper: .*https://({sites})\.$", inspect.getdoc(named) or "", re.MULTILINE)


@pytest.mark.parametrize("metric", available_metrics().values(), ids=lambda metric: metric.name)
def test_a_metric_names_its_paper(metric):
    function = getattr(metric.function, "func", metric.function)
    function = function if inspect.isroutine(function) else type(function)
    said = f"{inspect.getdoc(function)} {inspect.getmodule(function).__doc__}"
    assert re.search(r"arXiv:\d{4}\.\d{5}|https://", said) or metric.name == "MaxBoxAccV2"


@pytest.mark.parametrize("name", [*(each.__name__ for each in NAMED), *available_metrics()])
def test_everything_that_has_a_paper_can_be_cited(name):
    assert re.match(r"@\w+\{[\w]+,\n", cite(name))


def test_the_link_of_a_docstring_is_that_of_the_entry():
    for named in NAMED:
        (link,) = re.findall(r"^Paper: .*(https://\S+)\.$", inspect.getdoc(named), re.MULTILINE)[-1:]
        assert link in cite(named.__name__), named


def test_names_in_any_spelling_each_paper_once():
    assert cite("Grad-CAM++") == cite("gradcamplusplus") == cite("GradCAMPlusPlus")
    assert cite("deletion", "insertion").count("@") == 1
    assert cite("gradcam", "layercam").count("@") == 2
    assert f"version  = {{{pytorch_grad_cam.__version__}}}" in cite()


def test_another_name_is_refused_with_those_that_are_meant():
    with pytest.raises(ValueError, match="no paper of 'gradkam' is known; did you mean gradcam"):
        cite("gradkam")
