"""Does nnunetv2-cam run on this library, without its patched classes? `python -m benchmarks.nnunet`, 0.1.6.1.

An untrained nnU-Net of a small plan (three stages, anisotropic windows, axes transposed, a spacing of its own) in a
temporary folder, and a NIfTI scan with an oblique affine: nnunetv2-cam's own `run_cam_for_prediction` from the file to
the map in the scan's voxels, in which the 3-D versions of Grad-CAM++, XGrad-CAM, AblationCAM and Seg-XRes-CAM that it
brings are replaced by ours. "difference" is to the same maps made window by window by calling our class, joined by
nnunetv2-cam's rule and brought back by nnU-Net; nnunetv2-cam sums in half precision. "in the block": how much of the
map's sum lies on what is bright in the scan ("share": how much of the volume does); EigenCAM, which shows what stands
out, says whether the map is in its place.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from benchmarks.peers import environment_of
from benchmarks.report import write_report
from pytorch_grad_cam import (
    AblationCAM,
    EigenCAM,
    GradCAM,
    GradCAMElementWise,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    SegXResCAM,
    XGradCAM,
)

LIBRARIES = ("nnunetv2-cam==0.1.6.1", "nnunetv2==2.8.1")
OF_OURS: dict[str, Callable[..., Any]] = {
    "gradcam": GradCAM,
    "gradcam++": GradCAMPlusPlus,
    "xgradcam": XGradCAM,
    "segxrescam": SegXResCAM,
    "ablationcam": AblationCAM,
    "hirescam": HiResCAM,
    "layercam": LayerCAM,
    "gradcamelementwise": GradCAMElementWise,
    "eigencam": EigenCAM,
}
LAYER, CATEGORY = "encoder.stages.1", 1
AFFINE = np.array([[-1.4, 0.3, 0, 20], [0.3, 1.4, 0, -30], [0, 0, 2.5, 5], [0, 0, 0, 1]])
SIZE = (40, 36, 20)  # of the scan, x, y, z
BLOCK = slice(22, 32), slice(6, 16), slice(4, 10)
_CONFIGURATION = {
    "data_identifier": "small",
    "preprocessor_name": "DefaultPreprocessor",
    "batch_size": 2,
    "patch_size": [12, 24, 24],
    "median_image_size_in_voxels": [20, 36, 40],
    "spacing": [2.5, 1.6, 1.6],
    "normalization_schemes": ["ZScoreNormalization"],
    "use_mask_for_norm": [False],
    **{f"resampling_fn_{of}": "resample_data_or_seg_to_shape" for of in ("data", "seg", "probabilities")},
    "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
    "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None},
    "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None},
    "batch_dice": True,
    "architecture": {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": 3,
            "features_per_stage": [8, 16, 16],
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
            "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
            "n_conv_per_stage": [1, 1, 1],
            "n_conv_per_stage_decoder": [1, 1],
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    },
}
PLANS = {
    "dataset_name": "Dataset001_Small",
    "plans_name": "nnUNetPlans",
    "image_reader_writer": "NibabelIO",
    "transpose_forward": [0, 2, 1],
    "transpose_backward": [0, 2, 1],
    "foreground_intensity_properties_per_channel": {"0": {"mean": 0.0, "std": 1.0}},
    "configurations": {"3d_fullres": _CONFIGURATION},
}
DATASET = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "organ": 1, "lesion": 2},
    "numTraining": 1,
    "file_ending": ".nii.gz",
}


def written_model(folder: Path) -> Path:
    """The folder of an untrained network of the plan, as nnU-Net's training leaves it."""
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    torch.manual_seed(0)
    architecture: dict[str, Any] = _CONFIGURATION["architecture"]  # type: ignore[assignment]
    network = get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        1,
        len(DATASET["labels"]),  # type: ignore[arg-type]
        deep_supervision=False,
    )
    (folder / "fold_0").mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(PLANS))
    (folder / "dataset.json").write_text(json.dumps(DATASET))
    checkpoint = {
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": "3d_fullres"},
        "inference_allowed_mirroring_axes": None,
        "network_weights": network.state_dict(),
    }
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")
    return folder


def written_scan(folder: Path) -> Path:
    """Noise with a bright block, oblique and anisotropic."""
    import nibabel

    folder.mkdir()
    voxels = np.random.default_rng(0).random(SIZE, dtype=np.float32)
    voxels[BLOCK] += 4
    nibabel.save(nibabel.Nifti1Image(voxels, AFFINE), folder / "case_0000.nii.gz")
    return folder / "case_0000.nii.gz"


def direct(predictor: Any, file: Path, method: Callable[..., Any]) -> np.ndarray:
    """The map of a file, our class called for each window, joined and brought back as nnunetv2-cam does."""
    from nnunetv2_cam import api, cam_core

    data, _, properties, _ = api._preprocess_file(predictor, str(file), "")
    configuration = predictor.configuration_manager
    windows = cam_core._get_sliding_window_slicers(data.shape[1:], configuration.patch_size, predictor.tile_step_size)
    total, count = torch.zeros(1, *data.shape[1:]), torch.zeros(data.shape[1:])
    network = predictor.network.eval()
    for where in windows:
        image = data[where][None]
        with torch.no_grad():
            mask = (network(image)[0].argmax(0) == CATEGORY).float()
        cam = method(network, [network.get_submodule(LAYER)])
        total[where] += torch.from_numpy(cam(image, [lambda output, mask=mask: (output * mask).sum()]))
        count[where[1:]] += 1
    scaled = 1.3 * total / count  # nnunetv2-cam's factor
    back = api._resample_cam_to_original_shape(
        scaled, properties, configuration, predictor.plans_manager, predictor.label_manager
    )
    return np.asarray(back)


def rows() -> dict[str, dict[str, Any]]:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2_cam import api, cam_core

    found: dict[str, dict[str, Any]] = {}
    device = torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        model, file = written_model(Path(folder) / "model"), written_scan(Path(folder) / "scans")
        predictor = nnUNetPredictor(device=device, perform_everything_on_device=False, use_mirroring=False)
        predictor.initialize_from_trained_model_folder(str(model), (0,), "checkpoint_final.pth")
        with mock.patch.dict(cam_core.CAM_METHODS, OF_OURS, clear=True):
            for name, method in OF_OURS.items():
                run = partial(api.run_cam_for_prediction, predictor, str(file), folder, LAYER, CATEGORY)
                (heat,) = run(name, "3d", device, save_slices=name == "gradcam")
                expected = direct(predictor, file, method)
                in_block = np.zeros(heat.shape[1:], bool)
                in_block.transpose(2, 1, 0)[BLOCK] = True  # nnU-Net reads axes backwards
                found[name] = {
                    "shape": " x ".join(map(str, heat.shape)),
                    "finite": str(bool(np.isfinite(heat).all())),
                    "highest": float(heat.max()),
                    "difference": float(np.abs(heat - expected).max()),
                    "in the block": float(heat[0][in_block].sum() / heat.sum()),
                    "share": float(in_block.mean()),
                }
                sys.stderr.write(f"{name}: {found[name]}\n")
        pictures = len(list(Path(folder).glob("cam_gradcam/*/*.png")))
        sys.stderr.write(f"{pictures} pictures of slices\n")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--here", action="store_true", help="nnunetv2-cam is there: compare, in this interpreter")
    options = parser.parse_args()
    if not options.here:
        python = environment_of(*LIBRARIES)
        subprocess.run([python, "-m", "benchmarks.nnunet", "--here"], check=True, cwd=Path(__file__).parents[1])
        return
    for name in ("raw", "preprocessed", "results"):  # nnU-Net warns of folders that are not named
        os.environ.setdefault(f"nnUNet_{name}", tempfile.gettempdir())
    write_report("nnunet", rows(), "an untrained network of three stages, windows of 12 x 24 x 24, nnunetv2 2.8.1")


if __name__ == "__main__":
    main()
