"""The family of errors: what a person can mend, one sentence each.

    ZeroqError                 the command line prints it and exits with 2
    ├── OptionError            an option is out of range, unknown, or contradicts another
    │   └── SizeError          no bit setting is as small as was asked
    ├── ModelError             MODEL or its weights cannot be found, loaded or understood
    │   └── CaptureError       the module runs, but its graph cannot be taken
    ├── DataError              pictures or labels cannot be read, or do not fit the network
    ├── RunError               the run directory cannot be written or read
    └── NumericalError         NaN or infinity where a number is needed, with its place

    VerificationError          a defect of ours: the file does not equal its simulation (exit code 1)
"""

from __future__ import annotations


class ZeroqError(Exception):
    """Something that the person who asked can change; the message says what."""


class OptionError(ZeroqError):
    """An option is out of range, unknown, or contradicts another."""


class SizeError(OptionError):
    """No bit setting is as small as was asked."""


class ModelError(ZeroqError):
    """MODEL or its weights cannot be found, loaded or understood."""


class CaptureError(ModelError):
    """The module runs, but its graph cannot be taken."""


class DataError(ZeroqError):
    """Pictures or labels cannot be read, or do not fit the network."""


class RunError(ZeroqError):
    """The run directory cannot be written or read."""


class NumericalError(ZeroqError):
    """NaN or infinity where a number is needed."""


class VerificationError(Exception):
    """The exported file does not equal its simulation: a defect of this project."""
