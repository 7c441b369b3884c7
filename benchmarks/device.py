"""What can be seen on a GPU alone, by one command on a machine that has one: `python -m benchmarks.device`.

The tests of `tests/device`. Then the race of `benchmarks.speed`: all libraries in the gradient methods, and we alone in
those of our methods that do more on a GPU than run the model. Results: `results/*_cuda.json`, and the tables of them.
"""

import argparse
import subprocess
import sys
from pathlib import Path

NETWORKS, BATCHES = ("ResNet-50", "ViT-S"), ("1", "64")
OF_ALL = ("GradCAM", "GradCAMPlusPlus", "LayerCAM", "GradCAM, 5 classes")
OF_OURS = ("EigenCAM", "EigenGradCAM", "KPCA_CAM", "FullGrad", "AblationCAM", "ROADCombined, 4 percentiles")


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    tests = subprocess.run([sys.executable, "-m", "pytest", "-q", "tests/device"], cwd=Path(__file__).parents[1])
    race = [sys.executable, "-m", "benchmarks.speed", "--device", "cuda"]
    race += ["--networks", *NETWORKS, "--batches", *BATCHES]
    subprocess.run([*race, "--methods", *OF_ALL], check=True)
    subprocess.run([*race, "--methods", *OF_OURS, "--libraries", "here", "--add"], check=True)
    sys.exit(tests.returncode)


if __name__ == "__main__":
    main()
