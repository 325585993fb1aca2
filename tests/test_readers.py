"Images of one's own that are no images, or not quite: one message each, naming the file."

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from mnist_nbdev.base.files import (
    PipelineError,
    UsageError,
    read_sealed_json,
    write_sealed_json,
)
from mnist_nbdev.base.training_settings import DataSettings
from mnist_nbdev.data.readers import idx_files, raw_images, read_idx, read_idx_folder, read_npz
from mnist_nbdev.data.sources import load_dataset, open_dataset, save_dataset, source_hashes
from mnist_nbdev.data.spec import MAX_CLASSES

pytestmark = pytest.mark.unit
IMAGES = np.random.default_rng(0).integers(0, 256, (60, 6, 5), np.uint8)
LABELS = np.arange(60, dtype=np.uint8) % 3


def idx_bytes(array):
    header = struct.pack(f">{1 + array.ndim}I", 2048 + array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def folder(tmp_path) -> Path:
    "Four IDX files."
    for part, rows in (("train", slice(0, 50)), ("t10k", slice(50, 60))):
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(idx_bytes(IMAGES[rows]))
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(idx_bytes(LABELS[rows]))
    return tmp_path


def settings_for(path: Path, **values):
    return DataSettings(source="idx", path=str(path), **values)


# --- IDX files


def test_packing_a_file_changes_nothing_but_its_name(folder):
    plain = read_idx_folder(folder, idx_files(folder))
    for path in list(folder.iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    packed = read_idx_folder(folder, idx_files(folder))
    assert [*packed.sha256.values()] == [*plain.sha256.values()]
    assert np.array_equal(packed.training.images, plain.training.images)


def test_the_unpacked_file_is_read_where_both_are(folder):
    path = folder / "train-images-idx3-ubyte"
    path.with_name(f"{path.name}.gz").write_bytes(b"not this one")
    assert idx_files(folder)[0] == path.name


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an IDX file of bytes"),
        (b"\0\0\x0d\x03" + bytes(40), "is not an IDX file of bytes"),  # floats
        (idx_bytes(IMAGES)[:-1], "its header says 1,800 bytes, there are 1,799"),
        (idx_bytes(IMAGES) + b"x", "its header says 1,800 bytes, there are more"),
        (struct.pack(">4I", 2051, 2**32 - 1, 2**32 - 1, 2**32 - 1), "its header says"),
        (struct.pack(">2I", 2051, 3), "its header says"),
    ],
)
def test_a_file_that_is_no_idx_file_is_refused(tmp_path, content, message):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(PipelineError, match=f"/a.* {message}|/a: {message}"):
        read_idx(tmp_path / "a")


@pytest.mark.security
@pytest.mark.parametrize("place", range(10, 60, 7))
def test_a_damaged_packed_file_is_refused(tmp_path, place):
    packed = bytearray(gzip.compress(idx_bytes(IMAGES)))
    packed[place : place + 4] = b"\xff\xff\xff\xff"
    (tmp_path / "a.gz").write_bytes(packed)
    with pytest.raises(PipelineError, match=r"a\.gz"):
        read_idx(tmp_path / "a.gz")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my-train-images-idx3-ubyte", "more than one file of training images"),
        ("a.train-labels.idx1-ubyte", "more than one file of training labels"),
    ],
)
def test_two_files_of_a_kind_are_named(folder, name, message):
    (folder / name).write_bytes(b"")
    with pytest.raises(PipelineError, match=f"{message}: .*{name}"):
        idx_files(folder)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(PipelineError, match="nowhere cannot be listed: No such file"):
        idx_files(tmp_path / "nowhere")


@pytest.mark.security
def test_a_record_cannot_name_a_file_outside_the_folder(folder, tmp_path):
    run = tmp_path / "run"
    save_dataset(load_dataset(settings_for(folder), seed=0), run)
    record = read_sealed_json(run / "dataset.json")
    outside = {f"../{folder.name}/{name}": digest for name, digest in record["files"].items()}
    write_sealed_json(run / "dataset.json", {**record, "files": outside})
    with pytest.raises(PipelineError):
        open_dataset(run)


# --- Arrays


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(60, int), "1 classes; 2 to 1,000 are supported"),
        (LABELS.astype(float), "the training labels are float64; they must be whole numbers"),
        (np.where(LABELS, np.nan, 0.0), "the training labels are float64"),
        (LABELS[:59], r"the training labels have the shape \(59\) for 60 images"),
        (np.eye(3, dtype=int)[LABELS], r"the training labels have the shape \(60, 3\)"),
    ],
)
def test_labels_that_are_none_are_refused(labels, message):
    with pytest.raises(PipelineError, match=message):
        raw_images(Path("a"), {}, (IMAGES, labels), (IMAGES[:3], LABELS[:3]))


def test_a_thousand_classes_are_read_and_one_more_is_refused_with_the_count():
    images = np.zeros((1001, 1, 1), np.uint8)
    labels = np.arange(1001)
    raw = raw_images(Path("a"), {}, (images[:1000], labels[:1000]), (images[:1], labels[:1]))
    assert len(raw.class_names) == MAX_CLASSES
    assert raw.training.labels.dtype == np.uint16
    with pytest.raises(PipelineError, match="1,001 classes; 2 to 1,000 are supported"):
        raw_images(Path("a"), {}, (images, labels), (images[:1], labels[:1]))


@pytest.mark.parametrize(
    "images", [IMAGES[0], IMAGES[..., None, None], np.zeros((60, 6, 5, 4), np.uint8)]
)
def test_arrays_of_another_shape_are_no_images(images):
    with pytest.raises(PipelineError, match="the training images have the shape"):
        raw_images(Path("a"), {}, (images, LABELS), (IMAGES[:3], LABELS[:3]))


@pytest.mark.security
@pytest.mark.parametrize("content", [b"", b"x", b"PK\x03\x04" + bytes(50)])
def test_a_file_that_is_no_npz_is_refused(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(PipelineError, match=r"a\.npz cannot be read as arrays"):
        read_npz(tmp_path, ["a.npz"])


@pytest.mark.parametrize(("width", "fits"), [(1, True), (3, False)])
def test_labels_in_one_column_are_read_and_one_hot_ones_are_refused(tmp_path, width, fits):
    labels = LABELS[:, None] if width == 1 else np.eye(3, dtype=int)[LABELS]
    arrays = {"train_images": IMAGES, "train_labels": labels}
    np.savez(tmp_path / "a.npz", **arrays, test_images=IMAGES, test_labels=labels)
    if fits:
        assert np.array_equal(read_npz(tmp_path, ["a.npz"]).training.labels, LABELS)
    else:
        with pytest.raises(PipelineError, match=r"the training labels have the shape \(60, 3\)"):
            read_npz(tmp_path, ["a.npz"])


def test_arrays_of_other_names_are_listed(tmp_path):
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
    with pytest.raises(PipelineError, match="has the arrays images, labels; it needs x_train"):
        read_npz(tmp_path, ["a.npz"])


# --- From settings to a dataset


def test_a_tenth_is_held_out_and_the_split_is_stored(folder, tmp_path):
    dataset = load_dataset(settings_for(folder), seed=0)
    assert [len(split) for split in dataset.splits.values()] == [45, 5, 10]
    assert not dataset.verified  # nobody has said what the hashes should be
    save_dataset(dataset, tmp_path / "run")
    opened = open_dataset(tmp_path / "run")
    assert opened.spec == dataset.spec
    assert np.array_equal(opened.validation.images, dataset.validation.images)
    assert source_hashes(settings_for(folder)) == dataset.sha256


def test_a_changed_file_is_noticed_later(folder, tmp_path):
    save_dataset(load_dataset(settings_for(folder), seed=0), tmp_path / "run")
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(LABELS[49:59]))
    with pytest.raises(PipelineError, match="do not match"):
        open_dataset(tmp_path / "run")


def test_class_names_are_as_many_as_classes(folder):
    names = settings_for(folder, class_names=["cat", "dog", "emu"])
    assert load_dataset(names, seed=0).spec.class_names == ("cat", "dog", "emu")
    with pytest.raises(UsageError, match="2 names for 3 classes"):
        load_dataset(settings_for(folder, class_names=["cat", "dog"]), seed=0)


@pytest.mark.parametrize("names", [["a", "a", "b"], ["a", "", "b"], ["a", "b", "<b>"]])
def test_names_that_cannot_be_those_of_classes_are_one_message(folder, names):
    with pytest.raises(UsageError, match=r"two classes have the same name|cannot be the name"):
        load_dataset(settings_for(folder, class_names=names), seed=0)


def test_a_class_of_one_image_cannot_be_split(folder):
    labels = LABELS[:50].copy()
    labels[7] = 9
    (folder / "train-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    with pytest.raises(PipelineError, match=r"each class needs two or more \(one has 1\)"):
        load_dataset(settings_for(folder), seed=0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"source": "npz"}, "needs the path of its images"),
        ({"source": "mnist", "path": "a"}, "for the sources idx, npz, folder and csv"),
        ({"class_names": ["a", "b"]}, "for the sources idx and npz"),
    ],
)
def test_a_path_belongs_to_images_of_ones_own(values, message):
    with pytest.raises(ValidationError, match=message):
        DataSettings(**values)


def test_a_file_that_is_not_there_is_named(tmp_path):
    missing = DataSettings(source="npz", path=str(tmp_path / "a.npz"))
    with pytest.raises(UsageError, match=r"data\.path: there is no .*a\.npz"):
        load_dataset(missing, seed=0)
