import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (HERE / "pytorch_grad_cam/__init__.py").read_text(encoding="utf-8"), re.MULTILINE
)
REQUIREMENTS = (HERE / "requirements.txt").read_text(encoding="utf-8").split()
FIGURES, CONCEPTS = ["matplotlib>=3.7"], ["scikit-learn>=1.3"]  # figures, pages of other colours; factorisation
MEDICAL = ["nibabel>=5.0", "pydicom>=2.4"]
PYTEST = [requirement for requirement in REQUIREMENTS if requirement.startswith("pytest")]

setup(
    name="grad-cam",
    version=VERSION[1],
    description="Class activation maps for PyTorch: see what a vision model looks at",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10",
    packages=find_packages(include=["pytorch_grad_cam*"]),
    package_data={
        "pytorch_grad_cam": ["py.typed"],
        "pytorch_grad_cam.explanations": ["templates/*.*", "templates/script/*.js"],
        "pytorch_grad_cam.demo": ["*.pt", "*.png"],
    },
    entry_points={"console_scripts": ["grad-cam = pytorch_grad_cam.cli:main"]},
    install_requires=[requirement for requirement in REQUIREMENTS if requirement not in PYTEST],
    extras_require={
        "figures": FIGURES,
        "concepts": CONCEPTS,
        "medical": MEDICAL,  # NIfTI and DICOM files
        "video": ["imageio-ffmpeg>=0.4.9"],  # MP4 files
        "ray": ["ray[data]>=2.60"],
        "test": [
            *PYTEST,
            *FIGURES,
            *CONCEPTS,
            *MEDICAL,
            "hypothesis>=6.100",
            "ipykernel>=6.29",
            "nbclient>=0.10",
            "timm>=1.0.3",
            "transformers>=4.40",
            "ruff==0.17.6",
            "mypy==2.4.1",
            "selenium>=4.20",
        ],
    },
)
