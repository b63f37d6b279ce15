"""genbench: train, sample, score and compare image generators under one roof.

Importing the package is cheap on purpose: torch is imported when work starts, so that `--help` and
configuration errors answer at once.
"""

__version__ = "0.1.0"
