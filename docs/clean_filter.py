"""Git's clean filter for notebooks: no execution counts and no metadata is ever committed.

`make setup` tells git of it, for this clone alone. It is `nbdev_clean` from standard input to
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
