"The edges of `data/mnist`: what counts as a file of MNIST, and every way a download can fail."

import gzip
import hashlib
import http.server
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial

import pytest

from mnist_nbdev.base.files import TEMP_PREFIX, PipelineError
from mnist_nbdev.base.logs import get_logger
from mnist_nbdev.base.training_settings import DataSettings
from mnist_nbdev.data.mnist import (
    DownloadError,
    _torchvision_mirrors,
    check_idx,
    example_files,
    fetch_mnist,
    missing_files,
    mnist_folder,
)

pytestmark = pytest.mark.unit
IMAGES = "train-images-idx3-ubyte.gz"


class Example:
    "The small set: its table, its files and what a mirror sends of it."

    def __init__(self, root):
        self.folder = root / "MNIST" / "raw"
        self.files = example_files(self.folder)
        self.labels = self.folder / "train-labels-idx1-ubyte"
        self.unpacked = {file.name: (self.folder / file.name).read_bytes() for file in self.files}
        self.packed = {
            f"{name}.gz": gzip.compress(data, mtime=0) for name, data in self.unpacked.items()
        }


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    return Example(tmp_path_factory.mktemp("example"))


@pytest.fixture
def own_example(tmp_path):
    "A copy that a test may damage."
    return Example(tmp_path / "own")


Response = bytes | tuple[bytes, int] | None  # to send, (to send, length to announce), or nothing


@contextmanager
def mirror(responses: dict[str, Response | Callable[[], Response]]) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            response = responses.get(self.path.strip("/"))
            response = response() if callable(response) else response
            if not isinstance(response, tuple):
                response = response, len(response or b"")
            body, length = response
            with suppress(ConnectionError):
                self.send_response(200 if body is not None else 404)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(body or b"")

        def log_message(self, *_): ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def warnings():
    "The warnings about downloads, in order."
    messages = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())
    get_logger("data").addHandler(handler)
    yield messages
    get_logger("data").removeHandler(handler)


@pytest.fixture
def refused():
    "The address of a mirror that refuses connections."
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{unused.getsockname()[1]}"


def settings(root, *mirrors, **more):
    return DataSettings(root=str(root), mirrors=list(mirrors), **{"download_retries": 0} | more)


def downloaded(root):
    "List what a download left, without its lock."
    return sorted(set(os.listdir(root / "MNIST" / "raw")) - {".download.lock"})


# Files


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[:-1], "308 bytes, found 307"),
        (lambda data: data[:4] + bytes([0, 0, 1, 0]) + data[8:], "shape 300, .* shape 256"),
        (lambda data: data[:-1] + b"\x03", "SHA-256 .*, found"),
    ],
    ids=["truncated", "fewer images", "a changed label"],
)
def test_a_damaged_file_is_refused_with_what_differs_and_the_remedy(damage, words, own_example):
    own_example.labels.write_bytes(damage(own_example.labels.read_bytes()))
    with pytest.raises(PipelineError, match=f"expected .*{words}.*data fetch"):
        check_idx(own_example.labels, own_example.files[1])


def test_a_file_that_is_not_there_is_refused(own_example):
    own_example.labels.unlink()
    with pytest.raises(PipelineError, match=r"cannot be read \(No such file"):
        check_idx(own_example.labels, own_example.files[1])


def test_an_undamaged_file_is_accepted(example):
    for file in example.files:
        check_idx(example.folder / file.name, file)


def test_a_broken_link_is_not_missing(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert missing_files(tmp_path, ["link", "other"]) == ["other"]


# Downloads


def test_all_files_are_downloaded_and_equal_to_the_mirror_s(example, tmp_path):
    with mirror(example.packed) as url:
        folder = fetch_mnist(settings(tmp_path, url), example.files)
    assert folder == mnist_folder(settings(tmp_path)) == tmp_path / "MNIST" / "raw"
    assert {name: (folder / name).read_bytes() for name in downloaded(tmp_path)} == example.unpacked


def test_no_mirror_is_contacted_if_all_files_are_there(own_example, tmp_path, refused, warnings):
    assert fetch_mnist(settings(tmp_path / "own", refused), own_example.files)
    assert not warnings


@pytest.mark.parametrize(
    ("respond", "words"),
    [
        (lambda packed: (packed[IMAGES][:1000], len(packed[IMAGES])), "found .* in 1,000 bytes"),
        (lambda packed: packed["t10k-images-idx3-ubyte.gz"], "expected the MD5 .*, found"),
        (lambda packed: b"<html>Please log in to the network.</html>", "found .* in 42 bytes"),
        (lambda packed: None, "HTTP Error 404: Not Found"),
    ],
    ids=["truncated", "another file", "a page", "missing"],
)
def test_a_wrong_response_leaves_no_file_and_leads_to_the_next_mirror(
    respond, words, example, tmp_path, refused, warnings
):
    with mirror(example.packed | {IMAGES: respond(example.packed)}) as bad:
        with pytest.raises(DownloadError, match=words):
            fetch_mnist(settings(tmp_path, refused, bad), example.files)
        assert downloaded(tmp_path) == []
        assert warnings[1].startswith(f"Download failed: {bad}/{IMAGES}: ")
        with mirror(example.packed) as good:
            fetch_mnist(settings(tmp_path, refused, bad, good), example.files)
    assert downloaded(tmp_path) == sorted(example.unpacked)


def test_a_failed_download_names_the_file_each_reason_and_the_remedies(example, tmp_path, refused):
    with mirror(example.packed | {IMAGES: None}) as bad, pytest.raises(DownloadError) as failed:
        fetch_mnist(settings(tmp_path, refused, bad), example.files)
    message = str(failed.value)
    assert message.startswith("train-images-idx3-ubyte could not be downloaded")
    assert "Connection refused" in message
    assert "404" in message
    for remedy in ["data.mirrors", str(tmp_path / "MNIST" / "raw"), "data.source to sample"]:
        assert remedy in message


def test_a_mirror_that_breaks_off_once_is_tried_again(example, tmp_path, warnings):
    truncated = (example.packed[IMAGES][:1000], len(example.packed[IMAGES]))
    flaky = partial(next, iter([truncated, example.packed[IMAGES]]))
    with mirror(example.packed | {IMAGES: flaky}) as url:
        fetch_mnist(settings(tmp_path, url, download_retries=1), example.files)
    assert len(warnings) == 1


def test_a_silent_mirror_is_abandoned_after_the_time_out(example, tmp_path):
    ended = threading.Event()
    with mirror({IMAGES: lambda: ended.wait() and b""}) as url:
        with pytest.raises(DownloadError, match="timed out"):
            fetch_mnist(settings(tmp_path, url, download_timeout_s=0.2), example.files)
        ended.set()


BOMB = gzip.compress(bytes(50_000_000))


@pytest.mark.parametrize(
    ("archive", "words"),
    [
        (lambda _, __: BOMB, "found 235,217"),
        (lambda packed, _: packed[:-9], "end-of-stream"),
        (lambda _, __: BOMB[:10] + b"\xff" * 100, "invalid block type"),
        (lambda _, file: gzip.compress(file.header + bytes(file.n_bytes - 16)), "SHA-256"),
    ],
    ids=["50 MB", "truncated", "no archive", "other images"],
)
def test_an_archive_with_the_right_md5_and_the_wrong_content_leaves_no_file(
    archive, words, example, tmp_path
):
    sent = archive(example.packed[IMAGES], example.files[0])
    md5 = hashlib.md5(sent, usedforsecurity=False).hexdigest()
    table = (replace(example.files[0], gz_md5=md5),)
    with mirror({IMAGES: sent}) as url, pytest.raises(DownloadError, match=words):
        fetch_mnist(settings(tmp_path, url), table)
    assert downloaded(tmp_path) == []


def test_what_a_killed_download_left_is_removed(example, tmp_path):
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    (folder / f"{TEMP_PREFIX}{IMAGES}").write_bytes(example.packed[IMAGES][:1000])
    with mirror(example.packed) as url:
        fetch_mnist(settings(tmp_path, url), example.files)
    assert downloaded(tmp_path) == sorted(example.unpacked)


def test_a_wrong_file_is_reported_and_not_replaced(own_example, tmp_path):
    changed = own_example.labels.read_bytes()[:-1] + b"\x03"
    own_example.labels.write_bytes(changed)
    with pytest.raises(PipelineError, match="train-labels-idx1-ubyte is not the expected file"):
        fetch_mnist(settings(tmp_path / "own"), own_example.files)
    assert own_example.labels.read_bytes() == changed


def test_a_folder_that_cannot_be_written_is_reported_with_the_remedy(example, tmp_path):
    (tmp_path / "a file").touch()
    with pytest.raises(DownloadError, match=r"Cannot write to .*data.root to a writable folder"):
        fetch_mnist(settings(tmp_path / "a file"), example.files)


def test_without_other_mirrors_torchvision_s_are_asked():
    assert _torchvision_mirrors()
    assert all(url.startswith("http") for url in _torchvision_mirrors())
