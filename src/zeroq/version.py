"""The version of this package, said once: the build, `zeroq --version` and every file written read it here."""

__version__ = "0.1.0"
