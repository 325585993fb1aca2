"""Pages in a real browser: a server of this machine, and what must not happen on any page."""

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")


class Server(http.server.SimpleHTTPRequestHandler):
    "Serves a folder, without a word."

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/favicon.ico":  # which a browser asks for by itself
            self.send_response(204)
            self.end_headers()
        else:
            super().do_GET()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    "The address of a server of this folder."
    handler = functools.partial(Server, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


def watch(tab: Any, address: str) -> list[str]:
    "What goes wrong in a tab from now on: errors of its scripts, and requests to anywhere else."
    wrong: list[str] = []

    def elsewhere(request: Any) -> bool:
        return not request.url.startswith((address, "data:", "blob:"))

    tab.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("request", lambda request: wrong.append(request.url) if elsewhere(request) else None)
    return wrong
