"""Data sets of one's own go the whole way, from files to a decision, whatever their shape."""

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import QUICK, call
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from mnist_nbdev.base.files import read_json
from mnist_nbdev.data.spec import stored_spec
from mnist_nbdev.runs.run import Run

pytestmark = pytest.mark.integration
COLOURS = ("red", "green", "yellow", "blue", "magenta", "cyan", "white")  # by their bits


def colours(n_images: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    "Noisy images of 20 x 12 pixels with a square of one of seven colours."
    draws = np.random.default_rng(seed)
    labels = np.arange(n_images) % 7
    images = draws.integers(0, 60, (n_images, 20, 12, 3), np.uint8)
    shades = np.array([[(label + 1) >> bit & 1 for bit in range(3)] for label in range(7)])
    for image, label in zip(images, labels, strict=True):
        top, left = draws.integers(0, 12), draws.integers(0, 5)
        image[top : top + 8, left : left + 7] += (180 * shades[label]).astype(np.uint8)
    return images, labels


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    "A run on 700 colour images of seven classes."
    folder: Path = tmp_path_factory.mktemp("own")
    (x_train, y_train), (x_test, y_test) = colours(700, 0), colours(140, 1)
    np.savez(folder / "colours.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    names = f"data.class_names=[{', '.join(COLOURS)}]"
    flags = ["data.source=npz", "data.path=colours.npz", names, "training.epochs=4"]
    flags.append("release_thresholds.min_class_recall=0.9")
    ended = call("run", *QUICK, "--run-id", "first", *settings(flags), folder=folder)
    assert ended.code == 3, ended.err
    return folder


def settings(flags: list[str]) -> list[str]:
    return [word for flag in flags for word in ("--set", flag)]


def test_its_shape_and_classes_are_on_record(project):
    spec = stored_spec(read_json(project / "artifacts/runs/first/data/dataset.json"))
    assert (spec.image_shape, spec.class_names) == ((3, 20, 12), COLOURS)
    assert list(spec.slice_edges) == ["brightness", "contrast"]


def test_the_model_has_learned_it(project):
    run = Run(project / "artifacts/runs/first")
    assert run.summary["metrics"]["accuracy"] > 0.9
    assert read_json(run.path("models/export.json"))["labels_equal"] == 70  # a tenth of 700


def test_it_cannot_be_released_and_the_decision_says_why(project):
    checks = read_json(project / "artifacts/runs/first/decision.json")["checks"]
    why = {check["name"]: check["why"] for check in checks}
    assert "arrays of your own" in why["data"]
    assert "The worst of the 7 classes is " in why["class_recall"]
    assert "digit" not in " ".join(why.values())
    card = (project / "artifacts/runs/first/model_card.md").read_text()
    assert "assigns images to 7 classes:\nred, green, yellow, blue" in card
    assert "verified by its SHA-256" not in card


def test_it_is_verified_replayed_and_predicts(project):
    for words in (("runs", "verify", "first"), ("runs", "verify", "first", "--deep")):
        ended = call(*words, folder=project)
        assert ended.code == 0, ended.out + ended.err
    ended = call("runs", "replay", "first", folder=project)
    assert ended.code == 0, ended.out + ended.err
    images, labels = colours(7, 2)
    for image, label in zip(images, labels, strict=True):
        Image.fromarray(image).save(project / f"{COLOURS[label]}.png")
    files = [f"{name}.png" for name in COLOURS]
    ended = call("predict", *files, "--model", "first", "--json", folder=project)
    assert ended.code == 0, ended.err
    predicted = [row["label"] for row in ended.json]
    assert sum(name == answer for name, answer in zip(COLOURS, predicted, strict=True)) >= 6


def test_a_model_is_evaluated_again_where_its_images_have_moved(project):
    (project / "moved").mkdir()
    (project / "moved/colours.npz").write_bytes((project / "colours.npz").read_bytes())
    flags = settings(["data.source=npz", "data.path=moved/colours.npz"])
    words = ("run", "--mode", "evaluate", "--model", "first", "--run-id", "moved")
    ended = call(*words, *flags, folder=project)
    assert ended.code == 3, ended.err
    run = Run(project / "artifacts/runs/moved")
    assert run.spec.class_names == COLOURS
    assert run.summary["metrics"]["accuracy"] > 0.9
    ended = call(*words[:-1], "again", folder=project)  # where the training had them
    assert ended.code == 3, ended.err


def test_other_names_of_the_classes_make_another_run(project):
    names = f"data.class_names=[{', '.join(COLOURS[::-1])}]"
    flags = settings(["data.source=npz", "data.path=colours.npz", names, "training.epochs=1"])
    ended = call("run", *QUICK, "--run-id", "renamed", *flags, folder=project)
    assert ended.code == 3, ended.err
    assert "reused" not in ended.err
    assert Run(project / "artifacts/runs/renamed").spec.class_names == COLOURS[::-1]


def test_a_model_is_not_evaluated_on_other_images_with_the_same_labels(project):
    images, labels = colours(840, 7)
    arrays = (images[:700], labels[:700], images[700:], labels[700:])
    names = ("x_train", "y_train", "x_test", "y_test")
    (project / "other").mkdir()
    np.savez(project / "other/colours.npz", **dict(zip(names, arrays, strict=True)))
    flags = settings(["data.source=npz", "data.path=other/colours.npz"])
    words = ("run", "--mode", "evaluate", "--model", "first", "--run-id", "other")
    ended = call(*words, *flags, folder=project)
    assert ended.code == 1
    assert "may have seen the test images" in ended.err


def test_nobody_renames_the_classes_of_a_finished_model(project, tmp_path):
    run = Run(project / "artifacts/runs/first")
    original = run.path("models/model.json").read_bytes()
    description = run.record("models/model.json")
    description["spec"]["class_names"].reverse()
    run.save_record("models/model.json", description)
    images, labels = colours(7, 2)
    Image.fromarray(images[0]).save(tmp_path / "red.png")
    ended = call("predict", str(tmp_path / "red.png"), "--model", "first", folder=project)
    assert f"\t{COLOURS[labels[0]]}\t" in ended.out  # its export says so, under its hash
    run.path("models/model.json").write_bytes(original)


def test_other_data_at_the_same_path_are_noticed(project):
    images, labels = colours(700, 3)
    changed = {"x_train": images, "y_train": labels, "x_test": images[:70], "y_test": labels[:70]}
    original = (project / "colours.npz").read_bytes()
    np.savez(project / "colours.npz", **changed)
    ended = call("runs", "verify", "first", "--deep", folder=project)
    assert ended.code == 1
    (project / "colours.npz").write_bytes(original)


def idx_bytes(array: NDArray[Any]) -> bytes:
    header = struct.pack(f">{1 + array.ndim}I", 2048 + array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def test_small_digits_in_packed_idx_files_go_the_whole_way(tmp_path):
    digits = load_digits()  # 1,797 images of 8 x 8 pixels, 0 to 16
    images, labels = np.minimum(digits.images * 16, 255).astype(np.uint8), digits.target
    for name, part in (("train", slice(0, 1400)), ("t10k", slice(1400, None))):
        for kind, array in (("images-idx3", images[part]), ("labels-idx1", labels[part])):
            (tmp_path / "digits").mkdir(exist_ok=True)
            packed = gzip.compress(idx_bytes(array))
            (tmp_path / "digits" / f"{name}-{kind}-ubyte.gz").write_bytes(packed)
    flags = settings(["data.source=idx", "data.path=digits"])
    ended = call("run", *QUICK, "--run-id", "a", *flags, folder=tmp_path)
    assert ended.code == 3, ended.err
    assert Run(tmp_path / "artifacts/runs/a").summary["metrics"]["accuracy"] > 0.6
    assert call("runs", "verify", "a", "--deep", folder=tmp_path).code == 0


def test_a_data_set_of_torchvision_goes_the_whole_way(tmp_path):
    raw = tmp_path / "data/torchvision/FashionMNIST/FashionMNIST/raw"  # as torchvision unpacks it
    raw.mkdir(parents=True)
    draws = np.random.default_rng(0)
    for part, n_images in (("train", 600), ("t10k", 200)):
        labels = np.arange(n_images) % 10
        images = draws.integers(0, 60, (n_images, 28, 28))
        for image, label in zip(images, labels, strict=True):
            image[2 * label + 4 : 2 * label + 7, 5:25] = 220  # a bar whose height is the class
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    flags = settings(["data.source=torchvision:FashionMNIST", "training.epochs=3"])
    ended = call("run", *QUICK, "--run-id", "a", *flags, folder=tmp_path)
    assert ended.code == 3, ended.err
    run = Run(tmp_path / "artifacts/runs/a")
    assert run.spec.class_names[-1] == "Ankle boot"
    why = {check["name"]: check["why"] for check in run.read_json("decision.json")["checks"]}
    assert why["data"].startswith("The run used FashionMNIST from torchvision, which is not pinned")
    assert "digit" not in " ".join(why.values())
    card = (tmp_path / "artifacts/runs/a/model_card.md").read_text()
    assert "T-shirt/top, Trouser" in card
    assert "verified by its SHA-256" not in card
    for words in (("runs", "verify", "a", "--deep"), ("runs", "replay", "a")):
        ended = call(*words, folder=tmp_path)
        assert ended.code == 0, ended.out + ended.err
    ended = call("run", *QUICK, "--run-id", "b", *flags, folder=tmp_path)
    assert "reused" in ended.err
    (raw / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(labels[::-1]))
    for words in (("runs", "verify", "a", "--deep"), ("run", *QUICK, "--run-id", "c", *flags)):
        ended = call(*words, folder=tmp_path)
        assert ended.code == 1
        assert "t10k-labels-idx1-ubyte has the SHA-256" in ended.err
    (raw.parents[1] / "fetched.json").unlink()
    ended = call("runs", "verify", "a", "--deep", folder=tmp_path)
    assert "data fetch --set data.source=torchvision:FashionMNIST" in ended.err


@pytest.fixture(scope="module")
def scanned(tmp_path_factory) -> Path:
    "A run on a table of 420 scans by three cameras, in two sizes; two of the files are damaged."
    folder: Path = tmp_path_factory.mktemp("scanned")
    images, labels = colours(420, 4)
    rows = ["path,label,camera,remark"]
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        camera = "rare" if number % 30 == 7 else ("old", "new")[number % 2]
        size = (6, 4) if number in (3, 5) else (24, 40) if number % 5 == 0 else (12, 20)
        Image.fromarray(image).resize(size).save(folder / f"{number}.png")
        rows.append(f"{number}.png,{COLOURS[label]},{camera},<b>remark {number}</b>")
    for number in (100, 200):
        (folder / f"{number}.png").write_bytes(b"damaged")
    (folder / "scans.csv").write_text("\n".join(rows) + "\n")
    flags = ["data.source=csv", "data.path=scans.csv", "data.image_size=[20, 12]"]
    flags += ["data.unreadable=skip", "training.epochs=2"]
    flags.append("release_thresholds.min_slice_accuracy=0.9")
    ended = call("run", *QUICK, "--run-id", "scans", *settings(flags), folder=folder)
    assert ended.code == 3, ended.err
    return folder


def test_the_slices_of_a_table_are_in_the_decision_and_the_report(scanned):
    run = Run(scanned / "artifacts/runs/scans")
    slices = read_json(run.path("evaluation/robustness.json"))["slices"]
    cameras = {name: count["n_images"] for name, count in slices.items() if "camera" in name}
    assert cameras.keys() == {"camera = old", "camera = new", "camera = rare"}
    assert sum(cameras.values()) == read_json(run.path("data/dataset.json"))["counts"]["test"]
    why = {check["name"]: check["why"] for check in read_json(run.path("decision.json"))["checks"]}
    assert f"'camera = rare' ({cameras['camera = rare']})" in why["slices"]
    assert "2 image files could not be read and were left out." in why["data"]
    report = run.path("report.html").read_text()
    for text in ("camera = old", "large original", "No slices are made of", "values of remark"):
        assert text in report
    assert "<b>remark" not in report
    assert call("runs", "verify", "scans", "--deep", folder=scanned).code == 0


def test_the_quality_of_the_files_is_in_the_report(scanned):
    run = Run(scanned / "artifacts/runs/scans")
    checks = {check["name"]: check for check in read_json(run.path("data/quality.json"))}
    assert sum(checks["tiny"]["value"].values()) == 2
    assert "3.png" in checks["tiny"]["why"]
    assert checks["unreadable"]["value"] == {"files": 2}
    assert "Left out are 100.png; 200.png." in checks["unreadable"]["why"]
    assert checks["few images"]["outcome"] == "passed"
    assert run.path("data/suspects.png").is_file()
    assert "Suspicious image files" in run.path("report.html").read_text()
