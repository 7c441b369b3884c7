"""grad-cam 1.5.7's own tests, run on this library: `python -m benchmarks.incumbent_tests`.

They are fetched from PyPI (its source distribution) and run as they are, with random weights in place of downloaded
ones and the bundled scene in place of the picture that the distribution lacks. Takes about 5 minutes on 2 cores.
"""

import argparse
import os
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

from PIL import Image

from benchmarks.peers import ENVIRONMENTS, environment_of
from benchmarks.report import write_report
from pytorch_grad_cam.demo import example_scene

RELEASE = "grad-cam==1.5.7"
# Reads 1.5.7's source text for the name of one of its private attributes.
EXEMPT = "test_finercam_htcore_is_single_underscore"


def fetched_tests() -> Path:
    """The folder of the source distribution, with the picture that its tests read."""
    ENVIRONMENTS.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", RELEASE]
    subprocess.run([*command, "--dest", ENVIRONMENTS], check=True)
    (archive,) = ENVIRONMENTS.glob("grad_cam-*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(ENVIRONMENTS, filter="data")
    folder = ENVIRONMENTS / archive.name.removesuffix(".tar.gz")
    (folder / "examples").mkdir(exist_ok=True)
    Image.fromarray(example_scene()).resize((224, 224)).save(folder / "examples/both.png")
    return folder


def main() -> int:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    folder = fetched_tests()
    python = environment_of("psutil")  # which two of the tests import
    report = folder / "report.xml"
    # Their folder holds their package too: only ours may be imported.
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "PYTHONSAFEPATH": "1",
        "TQDM_DISABLE": "1",
    }
    options = ["-q", "-p", "benchmarks.random_weights", "--import-mode=importlib", "-k", f"not {EXEMPT}"]
    options += [f"--junitxml={report}", f"--rootdir={folder}", "tests"]
    subprocess.run([python, "-m", "pytest", *options], cwd=folder, env=environment, check=False)
    outcomes: dict[str, Counter] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        file = case.attrib["classname"].rpartition(".")[2]
        outcomes.setdefault(file, Counter())["failed" if len(case) else "passed"] += 1
    rows = {f"{file}.py": {"passed": count["passed"], "failed": count["failed"]} for file, count in outcomes.items()}
    write_report("incumbent_tests", rows, f"its tests as released; {EXEMPT}, which reads its source text, is exempt")
    return int(any(row["failed"] for row in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
