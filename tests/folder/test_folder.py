"""Many images on the command line: folders, globs and lists; stopped and continued; by several processes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mistakes import assert_one_line
from PIL import Image

from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.cli import main
from pytorch_grad_cam.demo.scenes import make_scene
from pytorch_grad_cam.explanations.explainer import Explainer
from pytorch_grad_cam.explanations.results import KINDS
from pytorch_grad_cam.folder.batches import decoded
from pytorch_grad_cam.folder.image_list import images_in, means_several
from pytorch_grad_cam.utils.image import show_cam_on_image
from pytorch_grad_cam.utils.regions import boxes_of, otsu_mask
from pytorch_grad_cam.zoo.classifiers import UnusableInput, load_classifier
from pytorch_grad_cam.zoo.read_image import read_image

ROOT = Path(__file__).parents[2]
NAME_MAX = 255  # bytes, on Linux and macOS
NAMES = ["a.jpg", "a.png", "sub/a.jpg", "sub/deep/b.bmp", "z.png"]
KILLED = """
import os, signal, sys, time
from pytorch_grad_cam import cli
from pytorch_grad_cam.folder.manifest import Manifest

append = Manifest.append

def append_and_die(manifest, records):
    append(manifest, records)
    if os.environ["RANK"] == "1":
        while not any(part.stat().st_size for part in manifest.folder.glob("manifest.0.jsonl")):
            time.sleep(0.01)  # torchrun ends the other process with this one
        with manifest.part.open("a") as part:
            part.write('{"path": "cut')
        os.kill(os.getpid(), signal.SIGKILL)

Manifest.append = append_and_die
sys.exit(cli.main())
"""


@pytest.fixture
def folder(tmp_path):
    """Five scenes of digits, two of them with the same stem."""
    return scenes(tmp_path / "photos", NAMES)


def scenes(folder: Path, names: list[str]) -> Path:
    rng = np.random.default_rng(0)
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(make_scene(rng).image).save(file)
    return folder


def arguments_for(images: object, output: Path, *more: str) -> list[str]:
    own = ["--image-path", str(images), "--model", "digits", "--output-dir", str(output), "--batch-size", "2"]
    return [*own, "--workers", "1", *more]


def explained(images: object, output: Path, *more: str, status: int = 0) -> list[dict]:
    """The manifest of a run."""
    assert main(arguments_for(images, output, *more)) == status
    return [json.loads(line) for line in (output / "manifest.jsonl").read_text().splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.slow
def test_results(folder, tmp_path, capsys):
    output = tmp_path / "output"
    records = explained(folder, output, "--save", *KINDS)
    assert "5 of 5 images explained" in capsys.readouterr().out
    assert [Path(record["path"]).relative_to(folder).as_posix() for record in records] == NAMES
    highest = {name: record["top_classes"][0]["class"] for name, record in zip(NAMES, records, strict=True)}
    results = {f"{name}.gradcam.{highest[name]}.{kind}" for name in NAMES for kind in ("jpg", "npy", "png")}
    assert contents(output).keys() == results | {"manifest.jsonl", "configuration.json"}

    classifier = load_classifier("digits")
    for record in records:
        x = classifier.preprocess(read_image(record["path"]))[None]
        with GradCAM(classifier.model, align="receptive_field") as cam:
            expected = cam(x)[0]
        probabilities = classifier.probabilities(cam.outputs)[0]
        (target,) = record["targets"]
        files = {kind: output / name for kind, name in target["files"].items()}
        cam_map, mask = np.load(files["map"]), np.asarray(Image.open(files["mask"]))
        np.testing.assert_allclose(cam_map, expected, atol=1e-5)
        np.testing.assert_array_equal(mask, 255 * otsu_mask(cam_map).astype(np.uint8))
        assert record["size"] == record["original_size"] == list(mask.shape) == list(x.shape[2:])
        assert target["boxes"] == target["boxes_in_original"] == [list(box) for box in boxes_of(mask)]
        overlay = show_cam_on_image(classifier.picture(x[0]), cam_map, use_rgb=True)
        assert np.abs(np.asarray(Image.open(files["overlay"]), dtype=float) - overlay).mean() < 5, "of JPEG"
        assert (target["method"], target["layer"]) == ("GradCAM", "layer4")
        assert "preprocessing: that of the bundled network" in record["assumptions"]
        assert record["warnings"] == []
        assert target["class"] == record["top_classes"][0]["class"] == int(probabilities.argmax())
        assert target["name"] == str(target["class"])
        shown = [entry["probability"] for entry in record["top_classes"]]
        np.testing.assert_allclose(shown, probabilities.sort(descending=True).values[:5], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gradcam", "eigencam", "fullgrad", "finercam", "refinecam"])
def test_several_classes(name, folder, tmp_path, capsys):
    """One map a class; of a class that is not there the manifest says so, and nothing else does."""
    options = ["--target-category", "3", "5", "--method", name, "--save", "map", "--batch-size", "5"]
    records = explained(folder, tmp_path / "output", *options)
    assert "blank" not in capsys.readouterr().err
    for record in records:
        assert [target["class"] for target in record["targets"]] == [3, 5]
        maps = [np.load(tmp_path / "output" / target["files"]["map"]) for target in record["targets"]]
        assert any(not each.any() for each in maps) == bool(record["warnings"])
        assert all(": the map is blank: " in warning for warning in record["warnings"])
    if name == "gradcam":
        assert any(record["warnings"] for record in records)
        assert not all(record["warnings"] for record in records)


def test_of_classes_with_one_score_the_first_is_listed_first_and_explained(folder, tmp_path):
    weights = load_classifier("digits").model.state_dict()
    weights["fc.weight"].zero_()
    weights["fc.bias"].zero_()
    torch.save(weights, tmp_path / "even.pt")
    for record in explained(folder, tmp_path / "output", "--weights", str(tmp_path / "even.pt")):
        assert [entry["class"] for entry in record["top_classes"]] == [0, 1, 2, 3, 4]
        assert record["targets"][0]["class"] == 0


def test_what_a_path_means(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "notes.md").write_text("no image")
    (tmp_path / "list.txt").write_text("\n".join(["sub/a.jpg", "", str(folder / "a.png"), "sub/../a.png", "gone.jpg"]))
    found = {path: [image.name for image in images_in(path, tmp_path)] for path in (".", "sub", "*.png", "**/a.*")}
    assert found == {
        ".": NAMES,
        "sub": ["a.jpg", "deep/b.bmp"],
        "*.png": ["a.png", "z.png"],
        "**/a.*": ["a.jpg", "a.png", "sub/a.jpg"],
    }
    listed = images_in(str(tmp_path / "list.txt"), tmp_path)
    assert [image.name for image in listed] == ["sub/a.jpg", "a.png", "gone.jpg"], "in its order, each once"
    assert all(means_several(path) for path in (".", "sub", "*.png", str(tmp_path / "list.txt")))
    assert not any(means_several(path) for path in ("a.jpg", "gone.jpg", "*.gif", "notes.md"))


def test_brackets_in_a_name_are_no_wildcards(tmp_path):
    folder = scenes(tmp_path / "photos [2020]", ["a[1].png", "b.png"])
    output = tmp_path / "output"
    assert [image.name for image in images_in(str(folder), output)] == ["a[1].png", "b.png"]
    assert means_several(str(folder))
    assert not means_several(str(folder / "a[1].png"))
    assert len(explained(folder, output)) == 2
    assert list(output.glob("a[[]1].png.gradcam.*.jpg"))


def test_results_are_not_explained(folder, tmp_path):
    (folder / "made").mkdir()
    shutil.copy(folder / "a.jpg", folder / "made" / "a.jpg.overlay.jpg")
    assert [image.name for image in images_in(str(folder), folder / "made")] == NAMES
    with pytest.raises(UnusableInput, match="among the images"):
        images_in(str(folder), folder / "sub" / "..")
    (tmp_path / "none").mkdir()
    with pytest.raises(UnusableInput, match="there are no images in"):
        images_in(str(tmp_path / "none"), tmp_path / "output")


@pytest.mark.slow
def test_unreadable_images_do_not_stop_the_run(folder, tmp_path, capsys):
    whole = (folder / "a.png").read_bytes()
    (folder / "a.png").write_bytes(whole[:200])
    (folder / "empty.jpg").write_bytes(b"")
    records = explained(folder, tmp_path / "output", status=1)
    errors = {Path(record["path"]).name: record["error"] for record in records if "error" in record}
    said = capsys.readouterr().out
    assert errors.keys() == {"a.png", "empty.jpg"}
    assert all(
        "no image that Pillow can read" in error and f"not explained: {error}" in said for error in errors.values()
    )
    assert "4 of 6 images explained" in said

    (folder / "a.png").write_bytes(whole)
    records = explained(folder, tmp_path / "output", status=1)
    assert [Path(record["path"]).name for record in records if "error" in record] == ["empty.jpg"]
    assert list((tmp_path / "output").glob("a.png.gradcam.*.jpg"))


def test_long_names(tmp_path, capsys):
    """Names may be as long as the file system allows; an image whose files' would be longer does not stop the run."""
    longest = NAME_MAX - len(".png.gradcam.3.jpg")
    folder = scenes(tmp_path / "photos", ["a.png", "b" * longest + ".png", "c" * (longest + 1) + ".png"])
    records = explained(folder, tmp_path / "output", status=1)
    assert ["error" in record for record in records] == [False, False, True]
    assert "c.png: its results cannot be written" in records[2]["error"]
    assert f"not explained: {records[2]['error']}" in capsys.readouterr().out
    results = {record["targets"][0]["files"]["overlay"] for record in records[:2]}
    assert contents(tmp_path / "output").keys() == results | {"manifest.jsonl", "configuration.json"}


@pytest.mark.slow
def test_names_that_the_terminal_cannot_show(tmp_path):
    """Of a file system without an encoding, on a strict standard output."""
    folder = scenes(tmp_path / "photos", ["a.png"])
    (folder / os.fsdecode(b"caf\xe9.png")).write_bytes(b"no image")
    command = [sys.executable, "cam.py", *arguments_for(folder, tmp_path / "output")]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 1, finished.stderr
    assert "caf\\udce9.png" in finished.stdout
    assert "1 of 2 images explained" in finished.stdout


def test_nothing_can_be_read(tmp_path, capsys):
    (tmp_path / "list.txt").write_text("gone.jpg\nlost.jpg")
    assert main(arguments_for(tmp_path / "list.txt", tmp_path / "output")) == 1
    assert "0 of 2 images explained" in capsys.readouterr().out
    assert main(arguments_for(tmp_path / "list.txt", tmp_path / "output", "--strict")) == 2
    assert "there is no image gone.jpg" in capsys.readouterr().err


@pytest.fixture
def batches(monkeypatch):
    """The batches that are explained."""
    batches, explain = [], Explainer.__call__

    def explain_and_count(explainer, inputs, *count, **options):
        batches.append(inputs)
        return explain(explainer, inputs, *count, **options)

    monkeypatch.setattr(Explainer, "__call__", explain_and_count)
    return batches


@pytest.mark.slow
def test_started_again_it_makes_what_is_missing(folder, tmp_path, batches):
    output = tmp_path / "output"
    explained(folder, output)
    assert [len(x) for x in batches] == [1, 2, 2, 1], "the first image alone, then batches"
    before = contents(output)
    next((output / "sub/deep").glob("b.bmp.*.jpg")).unlink()
    lines = (output / "manifest.jsonl").read_text().splitlines(keepends=True)
    (output / "manifest.jsonl").write_text("".join(lines[:-1]) + lines[-1][:20])
    batches.clear()
    explained(folder, output)
    assert [len(x) for x in batches] == [1, 2, 1], (
        "besides the first image the batches of the missing file and of the line that is cut off"
    )
    assert contents(output) == before
    batches.clear()
    explained(folder, output)
    assert batches == []


@pytest.mark.slow
def test_an_unreadable_image_has_its_batch_made_again_once_it_can_be_read(folder, tmp_path, batches):
    whole = (folder / "a.png").read_bytes()
    for name in ("a.png", "z.png"):
        (folder / name).write_bytes(whole[:200])
    explained(folder, tmp_path / "output", "--save", *KINDS, status=1)
    before = contents(tmp_path / "output")
    batches.clear()
    explained(folder, tmp_path / "output", "--save", *KINDS, status=1)
    assert batches == []
    assert contents(tmp_path / "output") == before

    (folder / "a.png").write_bytes(whole)
    explained(folder, tmp_path / "output", "--save", *KINDS, status=1)
    assert [len(x) for x in batches] == [1, 2]
    explained(folder, tmp_path / "once", "--save", *KINDS, status=1)
    assert contents(tmp_path / "output") == contents(tmp_path / "once")


def test_another_configuration_is_refused(folder, tmp_path, capsys):
    assert main(arguments_for(folder, tmp_path / "output", "--target-category", "seventeen")) == 2
    capsys.readouterr()
    explained(folder, tmp_path / "output")
    before = contents(tmp_path / "output")
    assert main(arguments_for(folder, tmp_path / "output", "--method", "layercam", "--save", "map")) == 2
    error = capsys.readouterr().err
    assert "methods was None, is ['layercam'], save was ['overlay'], is ['map']): pass another --output-dir" in error
    assert contents(tmp_path / "output") == before
    assert main(arguments_for(folder, tmp_path / "output", "--device", "cpu")) == 0, "what makes no difference"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image-path", "{folder}", "--preview-model"], "--preview-model looks at one image"),
        (["--image-path", "{folder}/a.jpg", "--save", "map"], "--save and --workers are for several images"),
        (["--image-path", "{folder}/*.gif"], "there is no image"),
        (["--image-path", "{folder}", "--save", "video"], "invalid choice: 'video'"),
    ],
)
def test_mistakes_are_one_line(arguments, message, folder, tmp_path, capsys):
    arguments = [each.format(folder=folder) for each in arguments]
    command = [*arguments, "--model", "digits", "--output-dir", str(tmp_path / "output")]
    assert_one_line(lambda: main(command), message, capsys)


@pytest.mark.slow
def test_two_processes_one_killed_are_one_run(tmp_path):
    """Continued by two processes, and by one, the results are those of a single run, byte for byte."""
    folder = scenes(tmp_path / "photos", [f"{index}.png" for index in range(9)])
    (folder / "broken.jpg").write_text("no image")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        explained(folder, tmp_path / "single", "--save", *KINDS, status=1)
        (tmp_path / "killed.py").write_text(KILLED)
        assert two_processes(str(tmp_path / "killed.py"), folder, tmp_path / "pair").returncode != 0
        assert (tmp_path / "pair/manifest.1.jsonl").read_text().endswith('{"path": "cut')
        first, second = (paths_in(tmp_path / f"pair/manifest.{rank}.jsonl") for rank in (0, 1))
        assert first
        assert len(second) == 2, "one batch of the second process"
        assert first.isdisjoint(second)
        shutil.copytree(tmp_path / "pair", tmp_path / "alone")
        explained(folder, tmp_path / "alone", "--save", *KINDS, status=1)
        continued = two_processes(str(ROOT / "cam.py"), folder, tmp_path / "pair")
    finally:
        torch.set_num_threads(threads)
    assert continued.returncode != 0, "one image cannot be read"
    assert continued.stdout.count("9 of 10 images explained") == 1
    assert contents(tmp_path / "alone") == contents(tmp_path / "single")
    assert contents(tmp_path / "pair") == contents(tmp_path / "single")


def paths_in(part: Path) -> set[str]:
    return {json.loads(line)["path"] for line in part.read_text().splitlines() if line.endswith("}")}


def two_processes(script: str, folder: Path, output: Path) -> subprocess.CompletedProcess:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script]
    command = [*torchrun, *arguments_for(folder, output, "--save", *KINDS)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.parametrize(("started", "expected"), [("fork", (2, 2)), ("spawn", (0, 2))])
def test_a_lambda_is_sent_to_forked_processes_alone(started, expected, monkeypatch):
    """Python 3.14, macOS and Windows do not fork."""
    monkeypatch.setattr("multiprocessing.get_start_method", lambda allow_none: started)
    functions = (lambda image: image, load_classifier("digits").preprocess)
    assert tuple(decoded(["a"], each, [[0]], 2, False).num_workers for each in functions) == expected
