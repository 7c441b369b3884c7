"""Class activation maps for PyTorch: see what a vision model looks at."""

from importlib import import_module
from pathlib import Path as _Path
from typing import TYPE_CHECKING, Any

from pytorch_grad_cam.ablation_cam import AblationCAM
from pytorch_grad_cam.ablation_layer import AblationLayer, AblationLayerFasterRCNN, AblationLayerVit
from pytorch_grad_cam.activations_and_gradients import ActivationsAndGradients
from pytorch_grad_cam.ag_cam import AGCAM
from pytorch_grad_cam.attention_rollout import AttentionRollout
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.cam import CAM
from pytorch_grad_cam.compat.other_distribution import warn_of_other_distributions as _warn_of_other_distributions
from pytorch_grad_cam.eigen_cam import EigenCAM
from pytorch_grad_cam.eigen_grad_cam import EigenGradCAM
from pytorch_grad_cam.engine.cam_warning import CamWarning
from pytorch_grad_cam.engine.detections.box_targets import BoxTarget, DetectionTarget
from pytorch_grad_cam.engine.detections.predictions import Predictions
from pytorch_grad_cam.engine.segmentation.segmentation_target import SegmentationTarget
from pytorch_grad_cam.feature_factorization.deep_feature_factorization import DeepFeatureFactorization, run_dff_on_image
from pytorch_grad_cam.fem import FEM
from pytorch_grad_cam.finer_cam import FinerCAM
from pytorch_grad_cam.fullgrad_cam import FullGrad
from pytorch_grad_cam.grad_cam import GradCAM
from pytorch_grad_cam.grad_cam_elementwise import GradCAMElementWise
from pytorch_grad_cam.grad_cam_plusplus import GradCAMPlusPlus
from pytorch_grad_cam.grad_eclip import GradECLIP
from pytorch_grad_cam.gradient_rollout import GradientRollout
from pytorch_grad_cam.group_cam import GroupCAM
from pytorch_grad_cam.gscore_cam import GScoreCAM
from pytorch_grad_cam.guided_backprop import GuidedBackpropReLUModel
from pytorch_grad_cam.hirescam import HiResCAM
from pytorch_grad_cam.is_cam import ISCAM
from pytorch_grad_cam.kpca_cam import KPCA_CAM
from pytorch_grad_cam.layer_cam import LayerCAM
from pytorch_grad_cam.layer_integrated_gradients import LayerIntegratedGradients
from pytorch_grad_cam.legrad import LeGrad
from pytorch_grad_cam.lift_cam import LIFTCAM
from pytorch_grad_cam.locate import suggest_layers
from pytorch_grad_cam.mask_clip import MaskCLIP
from pytorch_grad_cam.meta_cam import MetaCAM
from pytorch_grad_cam.odam import ODAM
from pytorch_grad_cam.path_cam import PathCAM
from pytorch_grad_cam.random_cam import RandomCAM
from pytorch_grad_cam.recipro_cam import ReciproCAM
from pytorch_grad_cam.refine_cam import RefineCAM
from pytorch_grad_cam.registration import Registration, registration_of
from pytorch_grad_cam.rise import RISE
from pytorch_grad_cam.score_cam import ScoreCAM
from pytorch_grad_cam.seg_eigen_cam import SegEigenCAM
from pytorch_grad_cam.seg_xres_cam import SegXResCAM
from pytorch_grad_cam.sess import SESS
from pytorch_grad_cam.shapley_cam import ShapleyCAM
from pytorch_grad_cam.smooth_grad_cam_plusplus import SmoothGradCAMPlusPlus
from pytorch_grad_cam.ss_cam import SSCAM
from pytorch_grad_cam.ss_grad_cam import SSGradCAM
from pytorch_grad_cam.tam import TAM
from pytorch_grad_cam.text_relevance import TextRelevance
from pytorch_grad_cam.transmm import TransMM
from pytorch_grad_cam.utils.citations import cite
from pytorch_grad_cam.utils.model_targets import TokenTarget
from pytorch_grad_cam.xgrad_cam import XGradCAM

if TYPE_CHECKING:
    from pytorch_grad_cam.evaluation.evaluating import evaluate
    from pytorch_grad_cam.evaluation.evaluation import Evaluation
    from pytorch_grad_cam.explanations.comparison import compare
    from pytorch_grad_cam.explanations.explaining import explain
    from pytorch_grad_cam.explanations.explanation import Explanation
    from pytorch_grad_cam.explanations.report import write_report
    from pytorch_grad_cam.volumes.sliding_window_cam import SlidingWindowCAM
    from pytorch_grad_cam.zoo.classifiers import load_classifier
    from pytorch_grad_cam.zoo.text_classifier import TextClassifier

__version__ = "2.0.0"

__all__ = [
    "AGCAM",
    "CAM",
    "FEM",
    "ISCAM",
    "KPCA_CAM",
    "LIFTCAM",
    "ODAM",
    "RISE",
    "SESS",
    "SSCAM",
    "TAM",
    "AblationCAM",
    "AblationLayer",
    "AblationLayerFasterRCNN",
    "AblationLayerVit",
    "ActivationsAndGradients",
    "AttentionRollout",
    "BaseCAM",
    "BoxTarget",
    "CamWarning",
    "DeepFeatureFactorization",
    "DetectionTarget",
    "EigenCAM",
    "EigenGradCAM",
    "Evaluation",
    "Explanation",
    "FinerCAM",
    "FullGrad",
    "GScoreCAM",
    "GradCAM",
    "GradCAMElementWise",
    "GradCAMPlusPlus",
    "GradECLIP",
    "GradientRollout",
    "GroupCAM",
    "GuidedBackpropReLUModel",
    "HiResCAM",
    "LayerCAM",
    "LayerIntegratedGradients",
    "LeGrad",
    "MaskCLIP",
    "MetaCAM",
    "PathCAM",
    "Predictions",
    "RandomCAM",
    "ReciproCAM",
    "RefineCAM",
    "Registration",
    "SSGradCAM",
    "ScoreCAM",
    "SegEigenCAM",
    "SegXResCAM",
    "SegmentationTarget",
    "ShapleyCAM",
    "SlidingWindowCAM",
    "SmoothGradCAMPlusPlus",
    "TextClassifier",
    "TextRelevance",
    "TokenTarget",
    "TransMM",
    "XGradCAM",
    "cite",
    "compare",
    "evaluate",
    "explain",
    "load_classifier",
    "registration_of",
    "run_dff_on_image",
    "suggest_layers",
    "write_report",
]

# They need torchvision and Pillow, which the methods do not, or lie above the methods.
_IMPORTED_WHEN_USED = {
    "Evaluation": "evaluation.evaluation",
    "Explanation": "explanations.explanation",
    "SlidingWindowCAM": "volumes.sliding_window_cam",
    "TextClassifier": "zoo.text_classifier",
    "compare": "explanations.comparison",
    "evaluate": "evaluation.evaluating",
    "explain": "explanations.explaining",
    "load_classifier": "zoo.classifiers",
    "write_report": "explanations.report",
}

_warn_of_other_distributions(_Path(__file__).parent, __version__)


def __getattr__(name: str) -> Any:
    if name not in _IMPORTED_WHEN_USED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_IMPORTED_WHEN_USED[name]}"), name)


def __dir__() -> list[str]:
    """The public names only."""
    return [*__all__, "__version__"]
