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
from mnist_nbdev.base.settings import DataSettings, InferenceSettings
from mnist_nbdev.data.sources import load_dataset
from mnist_nbdev.model.reading import predict_files, read_digit

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

    classifier = SimpleNamespace(predict=predict)
    (tmp_path / "four.png").write_bytes(png(plain))
    (row,) = predict_files(classifier, [str(tmp_path / "four.png")], DEFAULT)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(png(plain))))
    assert predict_files(classifier, ["-"], DEFAULT) == [{**row, "file": "-"}]
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"text")))
    with pytest.raises(PipelineError, match="standard input cannot be read as an image"):
        predict_files(classifier, ["-"], DEFAULT)
