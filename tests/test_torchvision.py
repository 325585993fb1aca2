"Data sets of torchvision, as its own classes lay them out and as they should not be."

import bz2
import hashlib
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from commands import environment
from pydantic import ValidationError
from torchvision import datasets

from mnist_nbdev.base.files import PipelineError, UsageError, read_sealed_json
from mnist_nbdev.base.training_settings import DataSettings
from mnist_nbdev.data.mnist import DownloadError
from mnist_nbdev.data.quality import quality_report, require_quality
from mnist_nbdev.data.sources import (
    dataset_table,
    find_source,
    load_dataset,
    open_dataset,
    save_dataset,
    source_hashes,
)
from mnist_nbdev.data.torchvision_sets import fetch_set, find_class, read_set, set_folder

pytestmark = pytest.mark.unit
DRAWS = np.random.default_rng(0)
NOWHERE = "http://127.0.0.1:9/"


def settings_for(root: Path, name: str, **values) -> DataSettings:
    return DataSettings(source=f"torchvision:{name}", root=str(root), **values)


def fetched(root: Path, name: str):
    settings = settings_for(root, name)
    return read_set(fetch_set(settings, settings.source), settings.source)


def pixels(*shape: int) -> np.ndarray:
    return DRAWS.integers(0, 256, shape, np.uint8)


def write(path: Path, content: bytes) -> str:
    "Write a file; return its MD5."
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def idx_bytes(array: np.ndarray, kind: int = 8) -> bytes:
    magic = 256 * kind + array.ndim
    return struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + array.tobytes()


# --- The classes of torchvision, with files as each of them lays them out


def write_emnist(root: Path, split: str) -> np.ndarray:
    images = pixels(52, 28, 28)
    labels = np.uint8(1 + np.arange(52) % 26)
    for part, rows in (("train", slice(None)), ("test", slice(26))):
        raw = root / "torchvision/EMNIST/EMNIST/raw"
        write(raw / f"emnist-{split}-{part}-images-idx3-ubyte", idx_bytes(images[rows]))
        write(raw / f"emnist-{split}-{part}-labels-idx1-ubyte", idx_bytes(labels[rows]))
    return images


def test_the_splits_of_emnist_lie_side_by_side(tmp_path):
    images = write_emnist(tmp_path, "letters")
    raw = fetched(tmp_path, "EMNIST/letters")
    assert np.array_equal(raw.training.images, images)
    assert "".join(raw.class_names) == "abcdefghijklmnopqrstuvwxyz"
    write_emnist(tmp_path, "balanced")  # as the archive has them too
    again = read_set(tmp_path / "torchvision/EMNIST", "torchvision:EMNIST/letters")
    assert again.sha256 == raw.sha256
    assert all("-letters-" in name for name in raw.sha256)


def test_qmnist_has_the_digit_in_the_first_of_eight_columns(tmp_path):
    labels = np.tile((np.arange(40) % 10)[:, None], 8) + np.arange(8)
    for part, n_images in (("train", 40), ("test", 20)):
        raw = tmp_path / "torchvision/QMNIST/QMNIST/raw"
        write(raw / f"qmnist-{part}-images-idx3-ubyte", idx_bytes(pixels(n_images, 28, 28)))
        content = idx_bytes(labels[:n_images].astype(">i4"), kind=12)
        write(raw / f"qmnist-{part}-labels-idx2-int", content)
    raw = fetched(tmp_path, "QMNIST")
    assert raw.training.labels.tolist() == [*range(10)] * 4
    assert raw.class_names[:2] == ("0 - zero", "1 - one")


def test_usps_stays_packed(tmp_path):
    for name, n_images in (("usps.bz2", 30), ("usps.t.bz2", 10)):
        rows = [
            f"{1 + i % 10} " + " ".join(f"{k + 1}:-1" for k in range(256)) for i in range(n_images)
        ]
        write(tmp_path / "torchvision/USPS" / name, bz2.compress("\n".join(rows).encode()))
    raw = fetched(tmp_path, "USPS")
    assert raw.training.images.shape == (30, 16, 16)
    assert raw.class_names == tuple("0123456789")
    assert list(raw.sha256) == ["usps.bz2", "usps.t.bz2"]


def test_svhn_has_its_channels_first_and_no_names(tmp_path, monkeypatch):
    images, known = pixels(30, 32, 32, 3), {}
    for part, n_images in (("train", 30), ("test", 20)):
        path = tmp_path / f"torchvision/SVHN/{part}_32x32.mat"
        path.parent.mkdir(parents=True, exist_ok=True)
        labels = 1 + np.arange(n_images)[:, None] % 10  # 10 is the digit 0
        scipy.io.savemat(path, {"X": images[:n_images].transpose(1, 2, 3, 0), "y": labels})
        md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        known[part] = [NOWHERE, path.name, md5]
    monkeypatch.setattr(datasets.SVHN, "split_list", known)
    raw = fetched(tmp_path, "SVHN")
    assert np.array_equal(raw.training.images, images)
    assert raw.training.images.flags.c_contiguous
    assert raw.training.labels[:10].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    assert raw.class_names == tuple("0123456789")


def test_stl10_names_its_classes_in_a_file(tmp_path, monkeypatch):
    folder, images, names = (
        tmp_path / "torchvision/STL10/stl10_binary",
        pixels(8, 3, 96, 96),
        "abcd",
    )
    lists = {}
    for part, n_images in (("train", 8), ("test", 4)):
        labels = np.uint8(1 + np.arange(n_images) % 4)
        files = {f"{part}_X.bin": images[:n_images].tobytes(), f"{part}_y.bin": labels.tobytes()}
        files |= {"unlabeled_X.bin": b""} if part == "train" else {}
        lists[part] = [[name, write(folder / name, data)] for name, data in files.items()]
        monkeypatch.setattr(datasets.STL10, f"{part}_list", lists[part])
    write(folder / "class_names.txt", "\n".join(names).encode())
    write(folder.parent / "stl10_binary.tar.gz", b"unpacked beside")
    raw = fetched(tmp_path, "STL10")
    assert np.array_equal(raw.training.images, images.transpose(0, 3, 2, 1))  # stored by columns
    assert raw.class_names == tuple(names)
    assert not any(name.endswith(".gz") for name in raw.sha256)


class Harmful:
    "A pickle that writes a file when it is opened."

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def write_cifar(root: Path, monkeypatch, n_images: int = 20) -> None:
    folder = root / "torchvision/CIFAR10/cifar-10-batches-py"
    batch = {"data": pixels(n_images, 3072), "labels": [*range(10)] * (n_images // 10)}
    known = {name: write(folder / name, pickle.dumps(batch)) for name in ("one", "two", "test")}
    meta = write(folder / "batches.meta", pickle.dumps({"label_names": [*"abcdefghij"]}))
    files = {"filename": "batches.meta", "key": "label_names", "md5": meta}
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [[n, known[n]] for n in ("one", "two")])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test", known["test"]]])
    monkeypatch.setattr(datasets.CIFAR10, "meta", files)
    monkeypatch.setattr(datasets.CIFAR10, "url", NOWHERE)


def test_cifar_is_in_colour_and_passes_the_checks(tmp_path, monkeypatch):
    write_cifar(tmp_path, monkeypatch)
    dataset = load_dataset(settings_for(tmp_path, "CIFAR10", validation_size=10), seed=0)
    assert dataset.spec.image_shape == (3, 32, 32)
    assert dataset.spec.name == "torchvision:CIFAR10"
    assert dataset.spec.class_names == tuple("abcdefghij")
    assert not dataset.verified
    require_quality(quality_report(dataset), dataset.spec)
    assert "CIFAR10, downloaded by torchvision" in dataset_table(dataset)


@pytest.mark.parametrize("is_noted", [False, True])
def test_a_harmful_pickle_in_place_of_cifar_s_is_not_opened(tmp_path, monkeypatch, is_noted):
    write_cifar(tmp_path, monkeypatch)
    settings = settings_for(tmp_path, "CIFAR10")
    folder = set_folder(settings, settings.source)
    if is_noted:
        fetch_set(settings, settings.source)
    content = pickle.dumps(Harmful(tmp_path / "harm"))
    for path in (folder / "cifar-10-batches-py").iterdir():
        path.write_bytes(content)
    with pytest.raises(PipelineError, match="CIFAR10"):
        load_dataset(settings, seed=0)
    with pytest.raises(PipelineError, match="CIFAR10"):
        read_set(folder, settings.source)
    (folder / "fetched.json").unlink(missing_ok=True)
    with pytest.raises(DownloadError, match="CIFAR10 could not be fetched into"):
        fetch_set(settings, settings.source)
    with pytest.raises(PipelineError, match=r"torchvision cannot read CIFAR10 in .*corrupted"):
        read_set(folder, settings.source)
    assert not (tmp_path / "harm").exists()


# --- A class like those of torchvision


class Toys:
    "A data set that is downloaded from nowhere."

    classes = ("a|b", "a b", "", "ball")
    downloads: list[str] = []  # noqa: RUF012
    offline = False

    def __init__(self, root, train=True, transform=None, download=False):
        path = Path(root) / ("train.bin" if train else "test.bin")
        if download and not path.exists():
            if self.offline:
                raise RuntimeError("the address\nis not to be had")
            self.downloads.append(path.name)
            write(path, bytes(range(240 if train else 120)))
            write(Path(root) / "toys.zip", b"packed")
        content = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
        self.data = content.reshape(-1, 1, 5, 4)  # grey, channels first
        self.targets = [number % 4 for number in range(len(self.data))]


@pytest.fixture
def toys(tmp_path, monkeypatch) -> DataSettings:
    monkeypatch.setattr(datasets, "Toys", Toys, raising=False)
    monkeypatch.setattr(Toys, "downloads", [])
    return settings_for(tmp_path, "Toys", validation_size=4)


def test_it_is_downloaded_once(toys):
    assert source_hashes(toys) is None
    first = load_dataset(toys, seed=0)
    assert Toys.downloads == ["train.bin", "test.bin"]
    assert source_hashes(toys) == first.sha256 == load_dataset(toys, seed=0).sha256
    assert Toys.downloads == ["train.bin", "test.bin"]
    note = read_sealed_json(Path(first.folder) / "fetched.json")
    assert note["files"] == first.sha256
    assert list(first.sha256) == ["test.bin", "train.bin"]


def test_classes_get_names_that_a_report_can_show(toys):
    dataset = load_dataset(toys, seed=0)
    assert dataset.spec.class_names == ("a b (0)", "a b (1)", "(2)", "ball")
    assert dataset.spec.image_shape == (1, 5, 4)


def test_it_is_opened_again_from_the_record(toys, tmp_path):
    dataset = load_dataset(toys, seed=0)
    save_dataset(dataset, tmp_path / "run")
    opened = open_dataset(tmp_path / "run")
    assert opened.sha256 == dataset.sha256
    assert np.array_equal(opened.validation.images, dataset.validation.images)
    (Path(dataset.folder) / "fetched.json").unlink()
    (Path(dataset.folder) / "test.bin").write_bytes(bytes(120))  # also without the note
    with pytest.raises(PipelineError, match="the images do not match"):
        open_dataset(tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("test.bin", bytes(120), r"test\.bin has the SHA-256 \w+; when torchvision fetched it, "),
        ("more.bin", b"1", r"more\.bin was not there when torchvision fetched the data set"),
        ("deeper/training.pt", b"1", r"training\.pt was not there when"),
    ],
)
def test_files_unlike_the_first_fetch_are_refused(toys, name, content, words):
    folder = Path(load_dataset(toys, seed=0).folder)
    write(folder / name, content)
    with pytest.raises(PipelineError, match=words) as refused:
        load_dataset(toys, seed=0)
    assert f"remove {folder} and download them again" in str(refused.value)
    assert "data fetch --set data.source=torchvision:Toys" in str(refused.value)


def test_a_missing_file_is_downloaded_again_and_compared(toys, monkeypatch):
    first = load_dataset(toys, seed=0)
    (Path(first.folder) / "test.bin").unlink()
    with pytest.raises(PipelineError, match=r"test\.bin is missing, which torchvision fetched"):
        read_set(Path(first.folder), toys.source)
    assert load_dataset(toys, seed=0).sha256 == first.sha256
    assert Toys.downloads == ["train.bin", "test.bin", "test.bin"]
    (Path(first.folder) / "test.bin").unlink()
    monkeypatch.setattr(Toys, "offline", True)
    with pytest.raises(DownloadError, match="Toys could not be fetched into"):
        load_dataset(toys, seed=0)


def test_without_a_network_the_message_says_what_and_where(toys, monkeypatch):
    monkeypatch.setattr(Toys, "offline", True)
    with pytest.raises(DownloadError) as failed:
        load_dataset(toys, seed=0)
    place = set_folder(toys, toys.source)
    assert str(failed.value).startswith(
        f"Toys could not be fetched into {place}: the address is not to be had. Check the network"
    )
    assert not (place / "fetched.json").exists()


def test_hidden_files_do_not_count(toys):
    first = load_dataset(toys, seed=0)
    write(Path(first.folder) / ".DS_Store", b"1")
    assert load_dataset(toys, seed=0).sha256 == first.sha256


# --- What cannot be used


class Paths(Toys):
    "A data set of image files."

    def __init__(self, root, train=True, download=False):
        self.data = ["a.png", "b.png"]
        self.targets = [0, 1]


class Photos:
    def __init__(self, root, split="train", download=False):
        self.paths = []


class Local:
    def __init__(self, root, split="train"):
        self.data, self.labels = [], []


class Chosen:
    def __init__(self, root, subject, train=True, download=False):
        self.data, self.labels = [], []


@pytest.mark.parametrize("kind", [Photos, Local, Chosen])
def test_classes_without_arrays_are_refused_before_a_download(monkeypatch, kind):
    monkeypatch.setattr(datasets, kind.__name__, kind, raising=False)
    with pytest.raises(UsageError, match=rf"{kind.__name__} does not download .* CIFAR10"):
        find_class(f"torchvision:{kind.__name__}")


def test_paths_are_no_images(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "Paths", Paths, raising=False)
    with pytest.raises(PipelineError, match=r"the training images are .*; pixels must be bytes"):
        load_dataset(settings_for(tmp_path, "Paths"), seed=0)


@pytest.mark.parametrize("name", ["ImageNet", "CocoDetection", "FakeData", "Places365", "mnist"])
def test_of_torchvision_s_own_too(name):
    with pytest.raises(UsageError, match="Some that can be used: CIFAR10"):
        find_class(f"torchvision:{name}")


def test_every_example_can_be_used():
    from mnist_nbdev.data.torchvision_sets import EXAMPLES

    names = EXAMPLES.split(": ")[1].rstrip(".").split(", ")
    assert len(names) == 9
    for name in names:
        assert find_source(f"torchvision:{name}").title == f"{name} from torchvision"
        assert set(find_class(f"torchvision:{name}")[1]) == {"training", "test"}


@pytest.mark.parametrize(
    "name", ["torchvision:", "torchvision:../x", "torchvision:A/b/c", "photos"]
)
def test_other_names_are_no_setting(name):
    with pytest.raises(ValidationError):
        DataSettings(source=name)
    with pytest.raises(PipelineError, match="There is no data source"):
        find_source(name)


def test_a_path_is_not_for_torchvision():
    with pytest.raises(ValidationError, match="path is for the sources"):
        DataSettings(source="torchvision:KMNIST", path="x")


def test_torchvision_is_not_imported_for_other_sources():
    code = "import sys, mnist_nbdev.data.quality as _; print('torchvision' in sys.modules)"
    words = [sys.executable, "-c", code]
    ended = subprocess.run(words, capture_output=True, text=True, env=environment(), check=True)
    assert ended.stdout.strip() == "False"
