"""Commands whose imports are made already: a process that has imported what a run needs forks them.

Of the processor time of a small run, imports are three quarters. What starts a process as a shell
does is `commands.start`; here the process is forked, as kernels are: its memory is a copy, and all
else, its number, folder, variables, output and end, are its own.
"""

import atexit
import gc
import importlib
import io
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

IMPORTS = [
    *("mnist_nbdev.cli.cli", "mnist_nbdev.runs.report", "papermill", "nbconvert", "nh3"),
    *("ipykernel.kernelapp", "ipykernel.debugger", "jupyter_client.provisioning"),
    "torch._dynamo",  # which a first optimizer imports
]


class Forked:
    "A process that the server has forked."

    def __init__(
        self,
        what: str,  # "command" or "template"
        words: list[str],  # after `mnist-nbdev`
        folder: Path,
        variables: Mapping[str, str],  # all that it has
        handles: list[int],  # of files; the last two are standard output and standard error
        address: str,  # of the server
    ) -> None:
        request = {"what": what, "words": words, "folder": str(folder), "variables": {**variables}}
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connection.connect(address)
        socket.send_fds(self._connection, [json.dumps(request).encode()], handles)
        self.pid = int(self._connection.recv(64))

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def wait(self, timeout_s: float | None = None) -> int:  # exit code, or the signal's, negative
        with self._connection:
            self._connection.settimeout(timeout_s)
            return int(self._connection.recv(64))


def run(
    words: tuple[str, ...], folder: Path, variables: Mapping[str, str], timeout_s: float
) -> tuple[int, str, str]:  # exit code, standard output, standard error
    "Run a command to its end."
    server = start_server()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        handles = [out.fileno(), err.fileno()]
        process = Forked("command", [*words], folder, variables, handles, server)
        try:
            code = process.wait(timeout_s)
        except TimeoutError:
            process.kill()
            raise
        return code, text(out), text(err)


def text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


SERVERS: dict[bool, str] = {}  # the addresses of those that this process has started
START = threading.Lock()


def start_server(own: bool = True) -> str:
    """The address of a server, started once in a process; it ends with it.

    One that is not our `own` forgets this project's modules: its commands are a copy's.
    """
    with START:
        if own in SERVERS:
            return SERVERS[own]
        folder = tempfile.mkdtemp(prefix="forking-")
        address = os.path.join(folder, "socket")
        variables = {n: value for n, value in os.environ.items() if not n.startswith("COVERAGE")}
        variables["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # the template's kernels have it too
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(address)
            listener.listen(64)
            server = subprocess.Popen(
                [sys.executable, __file__, str(listener.fileno()), address, str(own)],
                stdin=subprocess.PIPE,  # it closes with this process
                pass_fds=[listener.fileno()],
                env=variables,
            )
        SERVERS[own] = address
        atexit.register(shutil.rmtree, folder)
        atexit.register(server.kill)
        return address


def serve(listener: socket.socket) -> None:
    "Fork at each request; return in the new process alone."
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        ready, _, _ = select.select([listener, 0], [], [])
        if 0 in ready:
            sys.exit()
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            return wait_for_one(connection)
        connection.close()


def wait_for_one(connection: socket.socket) -> None:
    "Fork what is asked for, and say how it ended; return in the new process alone."
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, handles, _, _ = socket.recv_fds(connection, 1_000_000, 3)
    pid = os.fork()
    if pid == 0:
        connection.close()
        return become(json.loads(message), handles)
    for handle in handles:
        os.close(handle)
    connection.send(str(pid).encode())
    _, status = os.waitpid(pid, 0)
    with suppress(OSError):  # nobody waits any more
        connection.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def become(request: dict[str, Any], handles: list[int]) -> None:
    "Be a command, or the template of a command's kernels."
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["variables"])
    *others, out, err = handles
    with open(os.devnull, "rb") as nothing:
        os.dup2(others[0] if others and request["what"] == "command" else nothing.fileno(), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), write_through=True)
    sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), write_through=True)
    for path in filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)):
        sys.path.insert(0, path)
        if os.path.exists(os.path.join(path, "sitecustomize.py")):
            runpy.run_path(os.path.join(path, "sitecustomize.py"))
    if "COVERAGE_PROCESS_CONFIG" in os.environ:
        import coverage

        coverage.process_startup()
    from mnist_nbdev.execution import kernels

    if request["what"] == "template":
        os.setsid()
        gc.unfreeze()  # a kernel that ends by itself would find leaks
        sys.argv = ["-c", str(others[0])]
        kernels.template_main()
    else:
        kernels.subprocess = SimpleNamespace(Popen=fork_template, DEVNULL=subprocess.DEVNULL)
        sys.argv = ["mnist-nbdev", *request["words"]]
        end_with(lambda: runpy.run_module("mnist_nbdev", run_name="__main__"))


def end_with(command: Callable[[], object]) -> None:
    "Do what a command does to its end, but for taking all modules apart, which takes seconds."
    code: object = 0
    try:
        command()
    except SystemExit as end:
        code = end.code
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def fork_template(
    command: list[str], *, cwd: Path, env: Mapping[str, str], pass_fds: list[int], **_: object
) -> Forked:
    return Forked("template", [], cwd, env, [*pass_fds, 1, 2], *SERVERS.values())


if __name__ == "__main__":
    SERVERS[sys.argv[3] == "True"] = sys.argv[2]
    from mnist_nbdev.execution.kernels import STARTS_THREADS
    from mnist_nbdev.runs.report import without_iri_grammar
    from mnist_nbdev.runs.stages import STAGES

    with without_iri_grammar():
        for name in [*IMPORTS, *(name for stage in STAGES.values() for name in stage.imports)]:
            if name not in STARTS_THREADS:
                importlib.import_module(name)
    if sys.argv[3] != "True":
        for name in [name for name in sys.modules if name.split(".")[0] == "mnist_nbdev"]:
            del sys.modules[name]
    gc.freeze()  # or each process would copy what it counts
    serve(socket.socket(fileno=int(sys.argv[1])))
