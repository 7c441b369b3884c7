"""All benchmarks, one after the other: `python -m benchmarks`, or `--quick` for less than five minutes.

They write `results/*.json`, the tables of the README and of `benchmarks/README.md`, and the plots. `--quick` prints
smaller tables of the first ones and writes nothing.
"""

import argparse
import subprocess
import sys

QUICK = ("speed", "growth", "agreement", "digits")
ALL = (
    *QUICK, "breakdown", "score_cam", "parity", "incumbent_tests", "zero_config", "families", "registration", "leaks",
    "mutants", "folder", "page", "real", "compiled", "plots",
)  # fmt: skip
WITH_DEVICE = ("speed", "growth", "breakdown", "folder", "compiled")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=ALL, help="default: all")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", default="cpu", help="of speed, growth, breakdown, folder and compiled")
    options = parser.parse_args()
    for part in options.parts or (QUICK if options.quick else ALL):
        command = [sys.executable, "-m", f"benchmarks.{part}"]
        command += ["--quick"] if options.quick and part in QUICK else []
        command += ["--device", options.device] if part in WITH_DEVICE else []
        sys.stderr.write(f"{' '.join(command[1:])}\n")
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
