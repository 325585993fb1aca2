"""A mirror that misbehaves in every way a network can: it is abandoned in bounded time,
nothing half-written stays, and the next mirror's file, verified, is taken.
"""

import gzip
import hashlib
import http.server
import itertools
import socket
import threading
from contextlib import contextmanager, suppress

import pytest

from mnist_nbdev.base.training_settings import DataSettings
from mnist_nbdev.data.mnist import DownloadError, IdxFile, fetch_mnist

SHAPE = (1000, 28, 28)
HEADER = IdxFile("", SHAPE, "", "").header
UNPACKED = HEADER + bytes(range(256)) * (28 * 28 * 1000 // 256) + bytes(28 * 28 * 1000 % 256)
PACKED = gzip.compress(UNPACKED, mtime=0)
FILE = IdxFile(
    "train-images-idx3-ubyte",
    SHAPE,
    hashlib.sha256(UNPACKED).hexdigest(),
    hashlib.md5(PACKED, usedforsecurity=False).hexdigest(),
)
TIMEOUT_S = 0.2


def send(handler, body, status=200, length=None, **headers):
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def trickle(handler):
    "A byte now and then, often enough that no read of the socket takes too long."
    send(handler, b"", length=len(PACKED))
    for byte in PACKED:
        if handler.server.ended.wait(TIMEOUT_S / 4):
            return
        handler.wfile.write(bytes([byte]))


def endless(handler):
    "More than any file has."
    handler.send_response(200)
    handler.end_headers()
    for chunk in itertools.repeat(bytes(1 << 16)):
        if handler.server.ended.is_set():
            return
        handler.wfile.write(chunk)


TURNS = itertools.cycle([302, 200])
MIRRORS = {
    "stalls": lambda handler: handler.server.ended.wait(),
    "stalls in the middle": lambda handler: (
        send(handler, PACKED[:1000], length=len(PACKED)),
        handler.server.ended.wait(),
    ),
    "cuts off in the middle": lambda handler: send(handler, PACKED[:1000], length=len(PACKED)),
    "sends a page": lambda handler: send(handler, b"<html>Please log in.</html>"),
    "sends another file": lambda handler: send(handler, gzip.compress(b"another file")),
    "redirects for ever": lambda handler: send(handler, b"", 302, Location=handler.path + "x"),
    "redirects to a new address each time": lambda handler: send(
        handler, b"", next(TURNS), Location=handler.path + "x"
    ),
    "redirects to a file of this machine": lambda handler: send(
        handler, b"", 302, Location="file:///etc/hostname"
    ),
    "fails": lambda handler: send(handler, b"", 503),
    "is slow": trickle,
    "never ends": endless,
    "speaks no HTTP": lambda handler: handler.wfile.write(b"\x1b[2J\x01" * 500),
}


@contextmanager
def mirror(answer):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            with suppress(ConnectionError):
                answer(self)

        def log_message(self, *_): ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.ended = threading.Event()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


def settings(root, *mirrors):
    return DataSettings(
        root=str(root), mirrors=list(mirrors), download_timeout_s=TIMEOUT_S, download_retries=1
    )


def left(root):
    return sorted(
        path.name for path in (root / "MNIST/raw").iterdir() if ".download.lock" not in path.name
    )


@pytest.mark.parametrize("what", MIRRORS)
def test_a_mirror_that_misbehaves_is_passed_over_and_leaves_nothing(what, tmp_path, tally):
    with mirror(MIRRORS[what]) as bad, mirror(lambda handler: send(handler, PACKED)) as good:
        with pytest.raises(DownloadError) as caught:
            fetch_mnist(settings(tmp_path / "alone", bad), (FILE,))
        named = f"{bad}/{FILE.name}.gz: " in str(caught.value)
        lost = "" if named else f"the message does not name it: {caught.value}"
        lost = lost or "".join(left(tmp_path / "alone"))
        assert all(line.isprintable() for line in str(caught.value).splitlines())
        fetch_mnist(settings(tmp_path / "both", bad, good), (FILE,))
    found = (tmp_path / "both/MNIST/raw" / FILE.name).read_bytes()
    assert lost or found == UNPACKED
    tally.add("a mirror that misbehaves", lost or "".join(left(tmp_path / "both")[1:]))


def test_a_mirror_that_refuses_is_passed_over(tmp_path, tally):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        refused = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(DownloadError, match="Connection refused"):
            fetch_mnist(settings(tmp_path / "alone", refused), (FILE,))
        with mirror(lambda handler: send(handler, PACKED)) as good:
            fetch_mnist(settings(tmp_path / "both", refused, good), (FILE,))
    assert left(tmp_path / "both") == [FILE.name]
    tally.add("a mirror that misbehaves")
