"""Something goes wrong at a chosen moment: a process counts what it does to the files of a folder,
and at the nth time it is killed, or the system refuses.

Python tells of each file that it opens, renames, makes or removes (PEP 578), before it does so; an
exception there stands for the system's own. Only `fsync` has to be wrapped.
"""

import errno
import fcntl
import os
import signal
import sys
import threading
from pathlib import Path
from typing import NamedTuple

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
EVENTS = {  # event -> which of its arguments are paths or descriptors
    "open": (0,),
    "os.rename": (0, 1),
    "os.mkdir": (0,),
    "os.remove": (0,),
    "os.rmdir": (0,),
    "os.symlink": (1,),
    "os.truncate": (0,),
    "os.chmod": (0,),
    "fcntl.flock": (0,),
    "fault.fsync": (0,),
}


class Plan(NamedTuple):
    "What is to happen, and when."

    what: str  # "count", "kill", a signal for the first process, or an error: "ENOSPC"
    moment: int  # at which operation, from 1
    folder: str  # of whose files operations are counted, below it too
    counter: str  # a file that has a byte for each operation, of all processes together

    @property
    def words(self) -> str:
        return "|".join(map(str, self))

    @classmethod
    def of_words(cls, words: str) -> "Plan":
        what, moment, folder, counter = words.split("|")
        return cls(what, int(moment), folder, counter)

    @property
    def count(self) -> int:
        "The operations so far."
        return Path(self.counter).stat().st_size if Path(self.counter).exists() else 0


def install(plan: Plan) -> None:
    "Let it happen in this process; this cannot be undone."
    within = threading.local()
    root = os.path.realpath(plan.folder)
    first = Path(plan.counter + ".pid")
    if not first.exists():
        first.write_text(str(os.getpid()))
    counter = os.open(plan.counter, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        places = EVENTS.get(event)
        if places is None or getattr(within, "busy", False):
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & WRITING):
            return
        if event == "fcntl.flock" and arguments[1] == fcntl.LOCK_UN:
            return  # no system refuses that
        within.busy = True
        try:
            paths = [_path(arguments[place]) for place in places]
            if any(path == root or path.startswith(root + os.sep) for path in paths):
                os.write(counter, b".")
                if os.fstat(counter).st_size == plan.moment:
                    _happen(plan.what, paths[-1], int(first.read_text()))
        finally:
            within.busy = False

    real_fsync = os.fsync

    def fsync(descriptor: int) -> None:
        sys.audit("fault.fsync", descriptor)
        real_fsync(descriptor)

    os.fsync = fsync
    sys.addaudithook(hook)


def _path(value: object) -> str:
    if isinstance(value, int):
        try:
            return os.readlink(f"/proc/self/fd/{value}")
        except OSError:
            return ""
    return (
        os.path.abspath(os.fsdecode(value)) if isinstance(value, str | bytes | os.PathLike) else ""
    )


def _happen(what: str, path: str, first: int) -> None:
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what.startswith("SIG"):
        os.kill(first, getattr(signal, what))
    elif what != "count":
        number = getattr(errno, what)
        raise OSError(number, os.strerror(number), path)
