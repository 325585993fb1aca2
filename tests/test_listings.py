"Folders and tables of image files that are not quite what they should be: one message each."

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnist_nbdev.base.files import PipelineError, UsageError, read_sealed_json, write_sealed_json
from mnist_nbdev.base.settings import Settings
from mnist_nbdev.base.training_settings import DataSettings
from mnist_nbdev.data.images import ImageForm, decode_images, flatten_image, is_colour
from mnist_nbdev.data.listings import (
    Listing,
    check_listing,
    hash_listing,
    list_folder,
    list_table,
)
from mnist_nbdev.data.quality import quality_report, require_quality
from mnist_nbdev.data.sources import load_dataset, open_dataset, save_dataset, source_hashes
from mnist_nbdev.runs.stages import STAGES, key_difference, stage_key

pytestmark = pytest.mark.unit
DRAWS = np.random.default_rng(0)


def save(path: Path, shape: tuple[int, ...] = (6, 5), **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(DRAWS.integers(0, 256, shape, np.uint8)).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    "Forty images of each of two classes."
    for number in range(80):
        save(tmp_path / "pictures" / "ab"[number % 2] / f"{number}.png")
    return tmp_path / "pictures"


def settings_for(path: Path, source: str = "folder", **values) -> DataSettings:
    return DataSettings(source=source, path=str(path), root=str(path.parent / "root"), **values)


def load(path: Path, source: str = "folder", **values):
    return load_dataset(settings_for(path, source, **values), seed=0)


# --- Folders


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: [p.unlink() for p in f.glob("b/*")], "b has no image files"),
        (lambda f: [p.unlink() for p in f.glob("*/*")], "a has no image files"),
        (lambda f: (f / "b").rename(f.parent / "b"), "has only the class a; 2 to 1,000"),
        (lambda f: save(f / "A/1.png"), "'A' and 'a' differ in case"),
        (
            lambda f: [save(f / n / "1.png") for n in ("ﬁn", "fin")],
            "differ in case or Unicode form",
        ),
        (lambda f: save(f / "test/a/1.png"), "has a folder test, but no train"),
        (lambda f: (f / "c").symlink_to(f / "a"), "c is a link"),
        (lambda f: (f / "a/more").symlink_to(f / "b"), "a/more is a link"),
        (
            lambda f: (f / "a/x.png").symlink_to(save(f.parent / "x.png")),
            "a link that leads outside",
        ),
        (lambda f: (f / "a/x.png").symlink_to("nowhere"), "There is no file a/x.png"),
        (lambda f: (f / "a/2.png").write_bytes(b""), "2.png cannot be read as an image"),
        (lambda f: save(f / "a/2.png", (7, 5)), "2.png has 7 × 5 pixels. It is not 6 × 5 like the"),
        (lambda f: [save(f / f"<b>/x{n}.png") for n in range(9)], "cannot be the name of a class"),
        (lambda f: os.makedirs(f / "a/\udcff.png"), None),
        (lambda f: save(f / "a/x.png").rename(f / "a/\udcff.png"), "is not a name in UTF-8"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused_with_one_message(folder, change, message):
    change(folder)
    if message is None:
        assert len(load(folder).train) > 40
        return
    with pytest.raises(PipelineError, match=message) as caught:
        load(folder)
    str(caught.value).encode()  # the system's name is not printed as it is


def test_links_to_images_of_the_folder_are_read(folder):
    (folder / "a/again.png").symlink_to(folder / "a/0.png")
    assert len(list_folder(folder).images) == 81


def test_more_classes_than_allowed_are_refused_with_the_count(folder):
    listing = list_folder(folder)
    image = listing.images[0]
    many = tuple(image._replace(label=f"c{number}") for number in range(1001))
    with pytest.raises(PipelineError, match="1,001 classes; 2 to 1,000 are supported"):
        check_listing(Listing(folder, many))


def test_a_name_in_the_two_forms_of_unicode_is_one_class(folder):
    name = unicodedata.normalize("NFD", "café")
    save(folder / name / "1.png")
    assert "café" in list_folder(folder).class_names


def test_a_hundred_bad_files_are_one_message(folder):
    for path in folder.glob("*/*"):
        path.write_bytes(b"GIF89a, or so" + path.name.encode())
    with pytest.raises(PipelineError, match="Not one of the files"):
        load(folder)
    save(folder / "a/0.png")
    with pytest.raises(PipelineError, match=r"and 78 more such files.*data\.unreadable") as caught:
        load(folder)
    assert len(str(caught.value)) < 800


def test_unreadable_files_can_be_skipped_and_are_on_record(folder, tmp_path):
    for name in ("a/2.png", "b/3.png"):
        (folder / name).write_bytes(b"")
    dataset = load(folder, unreadable="skip")
    save_dataset(dataset, tmp_path / "run")
    record = read_sealed_json(tmp_path / "run/dataset.json")
    assert sorted(record["image_files"]["skipped"]) == ["a/2.png", "b/3.png"]
    assert sum(map(len, dataset.splits.values())) == 78
    assert np.array_equal(open_dataset(tmp_path / "run").train.images, dataset.train.images)


def test_a_file_added_later_moves_no_other(folder):
    first = load(folder).image_files.listing["test.csv"]
    assert 1 < len(first.splitlines()) < 40
    for number in range(20):
        save(folder / f"a/new{number}.png")
    later = load(folder).image_files.listing["test.csv"]
    assert set(first.splitlines()) <= set(later.splitlines())
    assert len(later) > len(first)


def test_given_splits_are_kept(folder):
    for part, count in (("train", 30), ("val", 4), ("test", 6)):
        for number in range(count):
            save(folder / "given" / part / "ab"[number % 2] / f"{part}{number}.png")
    dataset = load(folder / "given")
    counts = {name: len(split) for name, split in dataset.splits.items()}
    assert counts == {"train": 30, "validation": 4, "test": 6}


@pytest.mark.parametrize("suffix", ["png", "jpg", "JPEG", "bmp", "tif", "tiff", "webp"])
def test_each_format_is_read(tmp_path, suffix):
    for number in range(24):
        save(tmp_path / "a" / "xy"[number % 2] / f"{number}.{suffix}", (8, 6, 3))
    assert load(tmp_path / "a").train.images.shape[1:] == (8, 6, 3)


# --- The run


def test_the_images_are_decoded_once_for_all_stages(folder, tmp_path, monkeypatch):
    save_dataset(load(folder), tmp_path / "run")
    monkeypatch.setattr("mnist_nbdev.data.images.decode_images", lambda *_: pytest.fail("decoded"))
    assert len(open_dataset(tmp_path / "run").test) > 0
    assert len(load(folder).test) > 0


def test_a_deep_verification_decodes_them_again(folder, tmp_path):
    dataset = load(folder)
    store = next((tmp_path / "root/decoded").glob("*.npy"))
    np.save(store, np.zeros_like(np.load(store)))
    record = read_sealed_json(store.with_suffix(".json"))
    forged = load_dataset(settings_for(folder), 0)  # its record says that the pixels are others
    assert np.array_equal(forged.train.images, dataset.train.images)
    zeros = np.zeros_like(np.load(store))
    np.save(store, zeros)
    from mnist_nbdev.data.images import DecodedImages

    digest = DecodedImages(zeros, np.array(record["sizes"]), {}).sha256
    write_sealed_json(store.with_suffix(".json"), {**record, "pixels_sha256": digest})
    assert not load_dataset(settings_for(folder), 0).train.images.any()  # who writes here, decides
    again = load_dataset(settings_for(folder), 0, decode=True)
    assert np.array_equal(again.train.images, dataset.train.images)


@pytest.mark.parametrize("stored", [True, False])
def test_a_stage_notices_that_a_file_changed(folder, tmp_path, stored):
    dataset = load(folder)
    save_dataset(dataset, tmp_path / "run")
    save(folder / "a/0.png")
    if stored:  # the stages go on with the images of the data stage
        assert np.array_equal(open_dataset(tmp_path / "run").train.images, dataset.train.images)
        return
    for path in (tmp_path / "root/decoded").iterdir():
        path.unlink()
    with pytest.raises(PipelineError, match=r"a/0\.png is not the file of this run"):
        open_dataset(tmp_path / "run")


def test_the_hashes_say_whether_a_file_changed(folder):
    settings = settings_for(folder)
    before = source_hashes(settings)
    assert before == load(folder).sha256
    image = Image.open(folder / "a/0.png")
    image.save(folder / "a/0.png", compress_level=0)  # the same pixels in other bytes
    assert source_hashes(settings) != before
    with pytest.raises(UsageError, match=r"data\.path: there is no .*nowhere"):
        load(folder.parent / "nowhere")


@pytest.mark.parametrize(
    "change",
    [{"image_size": [4, 4]}, {"channels": 3}, {"fit": "crop"}, {"unreadable": "skip"}],
)
def test_no_run_reuses_images_that_were_read_in_another_way(folder, change):
    stage = STAGES["1_data"]
    keys = [
        stage_key(stage, Settings(data=settings_for(folder, **values)), {})
        for values in ({}, change)
    ]
    assert key_difference(*keys).startswith(f"data.{next(iter(change))} ")


@pytest.mark.security
@pytest.mark.parametrize("path", ["../../secret.png", "/etc/passwd", "a/../../secret.png"])
def test_a_run_cannot_have_files_outside_of_its_folder_read(folder, tmp_path, path):
    save_dataset(load(folder), tmp_path / "run")
    save(tmp_path / "secret.png")
    listing = tmp_path / "run/test.csv"
    lines = listing.read_text().splitlines()
    lines[1] = ",".join([path, *lines[1].split(",")[1:]])
    listing.write_text("\n".join(lines) + "\n")
    record = read_sealed_json(tmp_path / "run/dataset.json")
    import hashlib

    record["files"]["test.csv"] = hashlib.sha256(listing.read_bytes()).hexdigest()
    write_sealed_json(tmp_path / "run/dataset.json", record)
    with pytest.raises(PipelineError, match="leads outside"):
        open_dataset(tmp_path / "run")


@pytest.mark.security
def test_nothing_is_written_where_a_run_says(folder, tmp_path):
    save_dataset(load(folder), tmp_path / "run")
    record = read_sealed_json(tmp_path / "run/dataset.json")
    record["image_files"]["stored"] = str(tmp_path / "elsewhere/a.npy")
    write_sealed_json(tmp_path / "run/dataset.json", record)
    assert len(open_dataset(tmp_path / "run").test) > 0
    assert not (tmp_path / "elsewhere").exists()


# --- Tables


def write_table(folder: Path, rows: list[str], header: str = "path,label,group") -> Path:
    path = folder / "table.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_no_group_is_on_two_sides(folder):
    paths = sorted(folder.glob("*/*.png"))
    rows = [f"{p.parent.name}/{p.name},{p.parent.name},g{int(p.stem) // 4}" for p in paths]
    dataset = load(write_table(folder, rows), "csv")
    sides = [set(split.groups) for split in dataset.splits.values()]
    assert all(sides)
    assert not sides[0] & sides[1]
    assert not sides[0] & sides[2]
    checks = {check.name: check.outcome for check in quality_report(dataset)}
    assert checks["group leakage"] == "passed"


def test_a_given_split_that_divides_a_group_is_refused(folder):
    paths = sorted(folder.glob("*/*.png"))
    rows = [
        f"{p.parent.name}/{p.name},{p.parent.name},g{n // 8},{'test' if n % 4 == 0 else 'train'}"
        for n, p in enumerate(paths)
    ]
    dataset = load(write_table(folder, rows, "path,label,group,split"), "csv")
    with pytest.raises(PipelineError, match="group leakage: expected none"):
        require_quality(quality_report(dataset), dataset.spec)


def test_the_order_of_the_rows_does_not_matter(folder):
    rows = [f"{p.parent.name}/{p.name},{p.parent.name}," for p in folder.glob("*/*.png")]
    first = load(write_table(folder, sorted(rows)), "csv")
    again = load(write_table(folder, sorted(rows, reverse=True)), "csv")
    assert first.sha256 == again.sha256
    assert np.array_equal(first.train.images, again.train.images)


def test_hashes_in_a_table_must_be_those_of_the_files(folder):
    listing = hash_listing(list_folder(folder))
    rows = [f"{i.path},{i.label},{i.sha256}" for i in listing.images]
    table = write_table(folder, rows, "path,label,sha256")
    assert len(load(table, "csv").train) > 40
    save(folder / "a/0.png")
    with pytest.raises(PipelineError, match=r"a/0\.png in .* has not the SHA-256 that is listed"):
        load(table, "csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has the columns none; it needs path and label"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"path;label\na;b\n", "has the columns path;label"),
        (b"path,label,label\na,b,c\n", "and each once"),
        (b"path,label\n\0,a\nx,b\n", "NUL|not a name in UTF-8"),
        (b"path,label\n" + b"a" * 200_000 + b",b\n", "field larger than field limit"),
        (b"path,label\n.,a\n..,b\n", "There is no file|outside"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(PipelineError, match=message):
        list_table(tmp_path / "t.csv")


def test_a_table_saved_by_excel_is_read(folder):
    rows = [f"{p.parent.name}\\{p.name},{p.parent.name}" for p in folder.glob("*/*.png")]
    text = "\r\n".join(["path,label", *rows])
    (folder / "t.csv").write_bytes(text.encode("utf-8-sig"))
    assert len(list_table(folder / "t.csv").images) == 80


# --- Image files


def test_one_colour_image_makes_all_of_them_colour(folder):
    save(folder / "b/79.png", (6, 5, 3))
    assert load(folder).spec.image_shape == (3, 6, 5)
    assert load(folder, channels=1).spec.image_shape == (1, 6, 5)


def test_exif_turns_an_image_before_its_size_is_looked_at(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(folder / "a/2.png", (5, 6), exif=exif)
    assert load(folder).spec.image_shape == (1, 6, 5)


def test_a_large_jpeg_is_reduced_as_it_is_decoded(tmp_path):
    shades = np.linspace(0, 255, 640).astype(np.uint8)
    pixels = np.broadcast_to(shades[:, None, None], (640, 480, 3))
    for name, quality in (("a", 90), ("b", 80)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.jpg", quality=quality)
    (tmp_path / "t.csv").write_text("path,label\na.jpg,a\nb.jpg,b\n")
    listing = hash_listing(list_table(tmp_path / "t.csv"))
    decoded = decode_images(listing, ImageForm((32, 24), None, "resize"))
    expected = np.asarray(Image.fromarray(pixels).resize((24, 32), Image.Resampling.LANCZOS))
    assert np.abs(decoded.pixels[0].astype(int) - expected).max() <= 4


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"]
)
def test_each_mode_becomes_grey_and_colour(mode):
    grey = Image.fromarray(np.arange(0, 240, 8, np.uint8).reshape(5, 6))
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    image = deep if mode == "I;16" else grey.convert(mode)
    assert flatten_image(image, 1, "a").mode == "L"
    assert flatten_image(image, 3, "a").mode == "RGB"
    if mode not in ("1", "CMYK", "YCbCr"):
        flat = np.asarray(flatten_image(image, 1, "a"), int)
        assert np.abs(flat - np.asarray(grey, int)).max() <= 3
    assert is_colour(image) is (mode in ("RGB", "RGBA", "CMYK", "YCbCr"))
