"Slices of image files: by the size of the originals, and by the columns of a table."

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from mnist_nbdev.base.files import PipelineError, canonical_json, read_sealed_json
from mnist_nbdev.base.settings import Settings
from mnist_nbdev.base.training_settings import DataSettings
from mnist_nbdev.data.corruptions import slice_masks, slice_names, slices_left_out
from mnist_nbdev.data.sources import load_dataset, open_dataset, save_dataset
from mnist_nbdev.data.spec import MNIST_SPEC, DatasetSpec, Split, measure_spec, stored_spec
from mnist_nbdev.gate.checks import check_slices
from mnist_nbdev.gate.evidence import good_evidence
from mnist_nbdev.gate.robustness import evaluate_robustness, plot_slices

pytestmark = pytest.mark.unit
MEASURED = ("dark", "bright", "low contrast", "high contrast")


@pytest.fixture
def scans(tmp_path) -> Path:
    "A hundred images of two classes, from an old and a new camera; every tenth is twice as large."
    draws = np.random.default_rng(0)
    (tmp_path / "scans").mkdir()
    for number in range(100):
        side = 16 if number % 10 == 3 else 8
        pixels = draws.integers(0, 256, (side, side), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "scans" / f"{number}.png")
    return tmp_path / "scans"


def table(folder: Path, column: str, value, name: str = "table.csv", more: str = "") -> Path:
    rows = [
        f"{n}.png,{'ab'[n % 2]},{value(n)}" for n in range(100) if (folder / f"{n}.png").exists()
    ]
    (folder / name).write_text("\n".join([f"path,label,{column}", *rows]) + "\n" + more)
    return folder / name


def camera(number: int) -> str:
    return "old" if number % 4 else " new "


def load(path: Path, source: str = "csv", **values):
    settings = {"image_size": [8, 8], "root": str(path.parent / "root"), **values}
    return load_dataset(DataSettings(source=source, path=str(path), **settings), seed=0)


def test_what_is_known_of_a_file_stays_with_its_image(scans, tmp_path):
    dataset = load(table(scans, "camera", camera))
    save_dataset(dataset, tmp_path / "run")
    for opened in (dataset, open_dataset(tmp_path / "run"), load(scans / "table.csv")):
        for name, split in opened.splits.items():
            originals = split.originals
            assert len(originals.paths) == len(split)
            assert (split.images == dataset.splits[name].images).all()
            for index, path in enumerate(originals.paths):
                number = int(path.removesuffix(".png"))
                assert originals.columns["camera"][index] == camera(number).strip()
                assert originals.sizes[index].tolist() == [16 if number % 10 == 3 else 8] * 2
                if number % 10 != 3:
                    pixels = np.asarray(Image.open(scans / path))
                    assert (split.images[index] == pixels).all()


def test_the_slices_are_the_same_when_everything_is_decoded_again(scans, tmp_path):
    dataset = load(table(scans, "camera", camera))
    assert dataset.spec.slice_values == (("camera", "old"), ("camera", "new"))
    save_dataset(dataset, tmp_path / "run")
    again = load_dataset(
        DataSettings(
            source="csv",
            path=str(scans / "table.csv"),
            image_size=[8, 8],
            root=str(tmp_path / "root"),
        ),
        seed=0,
        decode=True,
    )
    opened = open_dataset(tmp_path / "run").test
    slices = [
        evaluate_robustness(s.images, lambda x: np.zeros(len(x)), dataset.spec, s.originals)
        for s in (opened, again.test)
    ]
    assert np.array_equal(slices[0]["slices"], slices[1]["slices"])
    expected = {"small original", "large original", "camera = old", "camera = new"}
    assert slice_names(dataset.spec) == (
        *MEASURED,
        *("small original", "large original", "camera = old", "camera = new"),
    )
    masks = slice_masks(opened.images, dataset.spec, opened.originals)
    assert masks.keys() > expected
    large = [path.removesuffix(".png")[-1] == "3" for path in opened.originals.paths]
    assert masks["large original"].tolist() == large
    assert not masks["small original"].any()  # nine of ten have one size, and none is smaller


def test_a_stored_size_that_was_changed_is_noticed(scans, tmp_path):
    dataset = load(table(scans, "camera", camera))
    save_dataset(dataset, tmp_path / "run")
    store = next((scans / "root/decoded").glob("*.json"))
    text = store.read_text()
    store.write_text(text.replace("16", "17"))
    sizes = open_dataset(tmp_path / "run").test.originals.sizes  # decoded again
    assert np.array_equal(sizes, dataset.test.originals.sizes)


def test_originals_of_one_size_and_a_column_of_one_value_are_no_slices(scans):
    for number in range(3, 100, 10):
        (scans / f"{number}.png").unlink()
    assert slice_names(load(table(scans, "place", lambda _: "Bern")).spec) == MEASURED
    assert "slice_values" not in load(scans / "table.csv").spec.model_dump()


def test_a_folder_has_slices_by_the_size_of_the_originals(scans):
    for number in range(100):
        (scans / "ab"[number % 2]).mkdir(exist_ok=True)
        (scans / f"{number}.png").rename(scans / "ab"[number % 2] / f"{number}.png")
    dataset = load(scans, "folder")
    assert slice_names(dataset.spec) == (*MEASURED, "small original", "large original")
    assert dataset.spec.slice_values == ()


def test_a_name_per_image_and_rare_values_are_left_out_and_it_says_so(scans):
    dataset = load(table(scans, "scan,writer", lambda n: f"scan {n},writer {n % 14}"))
    columns = [column for column, _ in dataset.spec.slice_values]
    assert columns == ["writer"] * 12
    sentence = slices_left_out(dataset.train, dataset.spec)
    assert " values of scan, " in sentence
    assert "2 values of writer." in sentence


@pytest.mark.security
@pytest.mark.parametrize(
    "value",
    ["<script>", "a|b", "[a](b)", "`a`", "$x$", "\\x", "x" * 61, "\x1b[31mred", "\u202eabc", ""],
)
def test_a_value_that_cannot_be_shown_is_no_slice(scans, value):
    dataset = load(table(scans, "camera", lambda n: value if n % 2 else "old" if n % 3 else "new"))
    assert set(dataset.spec.slice_values) == {("camera", "old"), ("camera", "new")}
    stored = dataset.spec.model_dump(mode="json")
    stored["slice_values"].append(["camera", value])
    with pytest.raises(PipelineError, match="cannot name a slice"):
        stored_spec({"spec": stored})


@pytest.mark.security
@pytest.mark.parametrize("column", ["<b>", "a = b", "x" * 41, "\x1b[31m", "$"])
def test_a_column_that_cannot_be_shown_has_no_slices(scans, column):
    dataset = load(table(scans, column, camera))
    assert dataset.spec.slice_values == ()
    sentence = slices_left_out(dataset.train, dataset.spec)
    if column != "a = b":
        assert sentence == "No slices are made of 2 values of a column that cannot be named."


def test_a_spec_says_each_slice_once():
    fields = {**MNIST_SPEC.model_dump(), "slice_values": (("a", "b"), ("a", "b"))}
    with pytest.raises(ValidationError, match="cannot name a slice"):
        DatasetSpec(**fields)


def test_specs_of_arrays_are_stored_as_before():
    images = np.random.default_rng(0).integers(0, 256, (40, 5, 5), np.uint8)
    spec = measure_spec("npz", Split(images, np.arange(40) % 2), ("a", "b"))
    assert list(spec.slice_edges) == ["brightness", "contrast"]
    assert "slice_values" not in canonical_json(spec.model_dump(mode="json"))
    assert "slice_values" not in canonical_json(MNIST_SPEC.model_dump(mode="json"))


def test_the_listing_of_a_run_has_the_columns(scans, tmp_path):
    save_dataset(load(table(scans, "camera", camera)), tmp_path / "run")
    record = read_sealed_json(tmp_path / "run/dataset.json")
    assert record["spec"]["slice_values"] == [["camera", "old"], ["camera", "new"]]
    header = (tmp_path / "run/test.csv").read_text().splitlines()[0]
    assert header == "path,label,split,group,sha256,camera"


# --- The decision


def judged(**rare):
    slices = good_evidence().slices | {
        name: {"n_correct": n, "n_images": n} for name, n in rare.items()
    }
    return check_slices(good_evidence(slices=slices), Settings().release_thresholds)


def test_a_rare_camera_is_named_and_not_judged():
    check = judged(**{"camera = old": 3, "small original": 0})
    assert check.outcome == "passed"
    assert "the 2 slices" in check.why
    assert "with fewer than 100 test images: 'camera = old' (3), 'small original' (0)." in check.why
    assert check.value == judged().value  # the confidence is shared by those that are judged


def test_a_frequent_camera_is_judged():
    check = judged(**{"camera = old": 100})
    assert check.outcome == "insufficient"  # all are correct, which shows less than is required
    assert "'camera = old': 100 of its 100" in check.why


def test_a_fifth_of_a_property_without_images_is_still_insufficient():
    assert judged(bright=99).outcome == "insufficient"


def test_rare_values_alone_show_nothing():
    slices = {"camera = old": {"n_correct": 9, "n_images": 9}}
    check = check_slices(good_evidence(slices=slices), Settings().release_thresholds)
    assert (check.outcome, check.value) == ("insufficient", None)


def test_names_that_begin_alike_are_each_judged():
    names = [f"hospital = {'x' * 40} {n}" for n in range(3)]
    check = judged(**{names[0]: 2000, names[1]: 2000}, **{names[2]: 100})
    assert "the 5 slices" in check.why


def test_many_slices_are_shown_in_part():
    counts = {f"writer = {n}": {"n_correct": 5, "n_images": n % 3 * 5 + 5} for n in range(60)}
    axes = plot_slices(counts, 0.9).axes[0]
    assert len(axes.get_yticklabels()) == 40
    assert axes.get_title(loc="left").startswith("40 of 60 slices")
