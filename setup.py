import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (HERE / "pytorch_grad_cam/__init__.py").read_text(encoding="utf-8"), re.MULTILINE
)
REQUIREMENTS = (HERE / "requirements.txt").read_text(encoding="utf-8").split()
FIGURES, CONCEPTS = ["matplotlib>=3.7"], ["scikit-learn>=1.3"]  # figures, pages of other colours; factorisation
SITE = ["mkdocs>=1.6.1", "mkdocs-material>=9.7", "mkdocstrings>=1.0", "mkdocstrings-python>=2.0", "latex2mathml>=3.78"]
MEDICAL = ["nibabel>=5.0", "pydicom>=2.4"]
PYTEST = [requirement for requirement in REQUIREMENTS if requirement.startswith("pytest")]

setup(
    name="grad-cam",
    version=VERSION[1],
    description="Class activation maps for PyTorch: see what a vision model looks at",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="the pytorch_grad_cam maintainers",
    license_expression="MIT",
    license_files=["LICENSE"],
    keywords=[
        "class activation maps",
        "CAM",
        "Grad-CAM",
        "explainable AI",
        "interpretability",
        "saliency",
        "PyTorch",
        "computer vision",
        "vision transformer",
    ],
    classifiers=[
        "Development Status :: 5 - Production/Stable",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 15)),
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    project_urls={
        "Homepage": "https://pypi.org/project/grad-cam/",
        "Upstream of 1.x": "https://github.com/jacobgil/pytorch-grad-cam",
    },
    python_requires=">=3.10",
    packages=find_packages(include=["pytorch_grad_cam*"]),
    package_data={
        "pytorch_grad_cam": ["py.typed"],
        "pytorch_grad_cam.utils": ["papers.bib"],
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
        "docs": SITE,
        "lightning": ["lightning>=2.2"],
        "test": [
            *PYTEST,
            *FIGURES,
            *CONCEPTS,
            *SITE,
            *MEDICAL,
            "hypothesis>=6.100",
            "jsonschema>=4.18",
            "packaging>=24.0",
            "pytest-xdist>=3.5",
            "pyyaml>=6.0",
            "ipykernel>=6.29",
            "nbclient>=0.10",
            "timm>=1.0.3",
            "transformers>=4.40",
            "ruff==0.17.6",
            "mypy==2.4.1",
            "selenium>=4.20",
            "setuptools>=77.0.3",
        ],
    },
)
