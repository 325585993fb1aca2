"Image files of every kind are read as the same digit, or refused with a message that names them."

import io
import struct
import sys
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageOps

from mnist_nbdev.base.files import PipelineError
from mnist_nbdev.base.settings import InferenceSettings
from mnist_nbdev.base.training_settings import DataSettings
from mnist_nbdev.data.sources import load_dataset
from mnist_nbdev.data.spec import MNIST_SPEC, DatasetSpec
from mnist_nbdev.model.reading import predict_files, read_digit, read_image

pytestmark = pytest.mark.unit

DEFAULT = InferenceSettings()
FORMATS = {"F": "TIFF", "I": "TIFF", "CMYK": "TIFF", "YCbCr": "JPEG"}


def png(image, **save):
    file = io.BytesIO()
    image.save(file, format=save.pop("format", "PNG"), **save)
    return file.getvalue()


def distance(first, second):
    "The mean difference of the pixels, 0 to 255."
    return np.abs(first.astype(float) - second).mean()


@pytest.fixture(scope="module")
def digit():
    "A four, as MNIST has it."
    digits = load_dataset(DataSettings(source="sample"), seed=0).validation
    return digits.images[int(np.flatnonzero(digits.labels == 4)[3])]


@pytest.fixture(scope="module")
def plain(digit):
    "The same four in an image that is not of MNIST's size."
    return Image.fromarray(digit).resize((60, 60))


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "F", "I", "YCbCr", "I;16"]
)
def test_every_mode_of_pillow_is_read(plain, digit, mode):
    if mode == "I;16":
        image = Image.fromarray(np.asarray(plain).astype(np.uint16) * 257)
    else:
        image = plain.convert(mode)
    read = read_digit(png(image, format=FORMATS.get(mode, "PNG")), DEFAULT)
    assert distance(read, digit) < 15


def test_the_polarity_of_the_settings_decides_what_is_ink(plain, digit):
    forced = InferenceSettings(polarity="dark_on_light")
    assert distance(read_digit(png(ImageOps.invert(plain)), forced), digit) < 15
    with pytest.raises(PipelineError, match="shows nothing"):  # the wrong one finds no ink
        read_digit(png(plain), forced)


def test_the_first_frame_of_an_animation_is_read(plain, digit):
    frames = [Image.new("L", plain.size)]
    animation = png(plain, format="GIF", save_all=True, append_images=frames)
    assert distance(read_digit(animation, DEFAULT), digit) < 15


def test_a_thin_line_in_a_large_two_colour_scan_is_kept():
    line = Image.new("1", (3000, 3000), 1)
    line.paste(0, (1500, 300, 1512, 2700))  # a pen of 12 pixels
    assert (read_digit(png(line), DEFAULT).max(1) > 200).sum() >= 18


def claiming(intact, width, height):
    "A small PNG whose header claims another size."
    header = b"IHDR" + struct.pack(">II", width, height) + intact[24:29]
    return intact[:12] + header + struct.pack(">I", zlib.crc32(header)) + intact[33:]


UNUSABLE = {
    "empty": (b"", "cannot be read as an image"),
    "a header alone": (b"GIF89a and no more", "cannot be read as an image"),
    "white": (png(Image.new("L", (50, 50), 255)), "shows nothing"),
    "a constant": (png(Image.new("F", (9, 9), 1.0), format="TIFF"), "shows nothing"),
    "one pixel": (png(Image.new("L", (1, 1), 9)), "shows nothing"),
    "transparent": (png(Image.new("RGBA", (50, 50), (9, 9, 9, 0))), "shows nothing"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_file_without_a_digit_is_refused(name):
    content, message = UNUSABLE[name]
    with pytest.raises(PipelineError, match=message):
        read_digit(content, DEFAULT)


def test_half_a_file_is_refused(plain):
    intact = png(plain)
    with pytest.raises(PipelineError, match="cannot be read as an image"):
        read_digit(intact[: len(intact) // 2], DEFAULT)


def test_a_program_for_a_printer_is_not_executed(plain):
    with pytest.raises(PipelineError, match="is PostScript"):
        read_digit(png(plain, format="EPS"), DEFAULT)


@pytest.mark.parametrize(
    ("size", "megapixels", "message"),
    [
        ((60, 60), 0.001, r"60 by 60 pixels, more than inference\.max_image_megapixels"),
        ((60, 60_000), 1.0, r"60 by 60000 pixels, more than"),
        ((60_000, 60_000), DEFAULT.max_image_megapixels, "more pixels than Pillow reads"),
    ],
)
def test_more_pixels_than_allowed_are_refused_before_they_are_decoded(
    plain, size, megapixels, message
):
    content = claiming(png(plain), *size)
    with pytest.raises(PipelineError, match=message):
        read_digit(content, InferenceSettings(max_image_megapixels=megapixels))


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(PipelineError, match=r"There is no image file .*no\.png"):
        read_digit(tmp_path / "no.png", DEFAULT)
    with pytest.raises(PipelineError, match="cannot be read as an image"):
        read_digit(tmp_path, DEFAULT)


def test_standard_input_is_classified_as_a_file_is(plain, tmp_path, monkeypatch):
    def predict(images):  # depends on the pixels alone
        share = images.mean(dtype=float) / 255
        return None, np.array([[share, 1 - share]])

    classifier = SimpleNamespace(predict=predict, spec=MNIST_SPEC)
    (tmp_path / "four.png").write_bytes(png(plain))
    (row,) = predict_files(classifier, [str(tmp_path / "four.png")], DEFAULT)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(png(plain))))
    assert predict_files(classifier, ["-"], DEFAULT) == [{**row, "file": "-"}]
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"text")))
    with pytest.raises(PipelineError, match="standard input cannot be read as an image"):
        predict_files(classifier, ["-"], DEFAULT)


# Images of other data than MNIST
GREY = DatasetSpec(
    name="signs",
    image_shape=(1, 20, 12),
    class_names=("stop", "go"),
    pixel_mean=(0.5,),
    pixel_std=(0.25,),
    slice_edges={},
    reading="image",
)
COLOUR = GREY.model_copy(
    update={"image_shape": (3, 20, 12), "pixel_mean": (0.5,) * 3, "pixel_std": (0.25,) * 3}
)


def flat(mode, value, **save):
    "An image file of one colour, not of the data's shape."
    return png(Image.new(mode, (50, 31), value), **save)


@pytest.mark.parametrize(
    ("file", "colour"),
    [
        (flat("RGB", (10, 200, 90)), (10, 200, 90)),
        (flat("L", 70), (70, 70, 70)),
        (flat("1", 1), (255, 255, 255)),
        (flat("P", 0), (0, 0, 0)),
        (flat("RGBA", (10, 200, 90, 0)), (255, 255, 255)),
        (flat("RGBA", (10, 200, 90, 51)), (206, 244, 222)),
        (flat("LA", (0, 0)), (255, 255, 255)),
        (flat("L", 70, transparency=70), (255, 255, 255)),
        (flat("RGB", (1, 2, 3), transparency=(1, 2, 3)), (255, 255, 255)),
        (flat("I;16", 257 * 70), (70, 70, 70)),
        (flat("CMYK", (0, 0, 0, 255), format="TIFF"), (0, 0, 0)),
        (flat("RGB", (10, 200, 90), format="JPEG", quality=98), (10, 200, 90)),
    ],
)
def test_every_kind_of_image_becomes_grey_or_colour(file, colour):
    read = read_image(file, DEFAULT, COLOUR)
    assert (read.shape, read.dtype) == ((20, 12, 3), np.uint8)
    assert np.abs(read.astype(int) - colour).max() <= 2
    grey = read_image(file, DEFAULT, GREY)
    assert (grey.shape, grey.dtype) == ((20, 12), np.uint8)
    assert np.abs(grey.astype(int) - np.dot(colour, (0.299, 0.587, 0.114))).max() <= 2


@pytest.mark.parametrize("spec", [GREY, COLOUR])
def test_an_image_of_the_data_is_read_unchanged(spec):
    image = np.random.default_rng(0).integers(0, 256, spec.array_shape, dtype=np.uint8)
    assert np.array_equal(read_image(png(Image.fromarray(image)), DEFAULT, spec), image)


def test_a_fine_pattern_becomes_its_mean():
    stripes = np.zeros((400, 240), np.uint8)
    stripes[::2] = 255
    read = read_image(png(Image.fromarray(stripes)), DEFAULT, GREY)
    assert np.abs(read.astype(int) - 127).max() <= 4  # a little more at the edges


def test_an_image_is_turned_as_its_exif_says():
    upright = np.zeros((40, 24), np.uint8)
    upright[:20] = 255
    exif = Image.Exif()
    exif[0x0112] = 8  # "turn me by 90 degrees, counterclockwise"
    turned = png(Image.fromarray(np.rot90(upright, -1)), exif=exif)
    assert np.array_equal(
        read_image(turned, DEFAULT, GREY), read_image(png(Image.fromarray(upright)), DEFAULT, GREY)
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (flat("F", 0.5, format="TIFF"), "sign.png has pixels of 32 bits"),
        (flat("I", 5, format="TIFF"), "sign.png has pixels of 32 bits"),
        (b"text", "sign.png cannot be read as an image"),
        (flat("L", 70)[:60], "sign.png cannot be read as an image"),
    ],
)
def test_an_image_that_has_no_agreed_colours_is_refused(content, message):
    with pytest.raises(PipelineError, match=message):
        read_image(content, DEFAULT, COLOUR, name="sign.png")


def test_an_image_has_no_more_pixels_than_allowed():
    with pytest.raises(PipelineError, match=r"more than inference\.max_image_megapixels"):
        read_image(flat("L", 70), InferenceSettings(max_image_megapixels=0.001), GREY)


def test_a_class_is_named_and_a_digit_is_a_number(plain, tmp_path):
    (tmp_path / "sign.png").write_bytes(png(plain))

    def row(spec):
        answer = np.array([[0.25, 0.75]])
        classifier = SimpleNamespace(predict=lambda images: (None, answer), spec=spec)
        (found,) = predict_files(classifier, [str(tmp_path / "sign.png")], DEFAULT)
        return found

    named, digit = row(GREY), row(MNIST_SPEC)
    assert (named["label"], named["probabilities"]) == ("go", {"stop": 0.25, "go": 0.75})
    assert (digit["label"], digit["probabilities"]) == (1, [0.25, 0.75])
