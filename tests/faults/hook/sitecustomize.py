"""Python imports this as it starts, where this folder is on its path: a process that a test starts,
and those that it starts in turn, do what FAULT says.
"""

import os

if "FAULT" in os.environ:
    import injection

    injection.install(injection.Plan.of_words(os.environ["FAULT"]))
