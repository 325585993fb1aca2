"""Git's clean filter for notebooks: removes execution counts and metadata at each commit.

`make setup` configures it for this clone only. It runs `nbdev_clean` from standard input to
standard output, which nbdev 2.4's own `--stdin` does not do.
"""

import json
import sys

from execnb.nbio import nb2str
from nbdev.clean import clean_nb
from nbdev.config import get_config

settings = get_config()
notebook = json.loads(sys.stdin.buffer.read())
clean_nb(
    notebook,
    allowed_metadata_keys=settings.allowed_metadata_keys.split(),
    allowed_cell_metadata_keys=settings.allowed_cell_metadata_keys.split(),
)
sys.stdout.buffer.write(nb2str(notebook).encode())
