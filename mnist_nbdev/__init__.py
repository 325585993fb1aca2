"""From notebooks to a release decision: what is promised to stay; nbs/execution/05_api.ipynb shows it."""

__version__ = "0.1.0"

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_nbdev.execution.api import (
        find_run,
        load_champion,
        resolve_settings,
        run,
        verify_run,
    )
    from mnist_nbdev.model.reading import read_digit

__all__ = ["find_run", "load_champion", "read_digit", "resolve_settings", "run", "verify_run"]


def __getattr__(name: str) -> Any:  # imported when it is asked for: `--version` needs none of it
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    where = "model.reading" if name == "read_digit" else "execution.api"
    return getattr(import_module(f"mnist_nbdev.{where}"), name)
