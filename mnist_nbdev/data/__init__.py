"""From files to arrays: where images come from, their checks and their split. Nothing of networks."""
