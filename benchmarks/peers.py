"""Environments in which peers run: their own packages from PyPI, torch and the rest shared with ours."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ENVIRONMENTS = Path(__file__).parents[1] / ".peers"


def environment_of(requirement: str, *pip_options: str) -> Path:
    """The interpreter of an environment with the required package, made on the first call (needs PyPI)."""
    folder = ENVIRONMENTS / requirement.replace("==", "-")
    python = folder / "bin/python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        shared = sysconfig.get_path("purelib")
        target = subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        (Path(target) / "shared.pth").write_text(shared + "\n")
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", *pip_options, requirement], check=True, stdout=sys.stderr
        )
    return python
