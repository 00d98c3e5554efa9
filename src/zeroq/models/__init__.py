"""MODEL strings to trained networks: the embedded default, zoos, users' files."""

from zeroq.models.loaded import LoadedModel
from zeroq.models.resolve import load_model, missing_zoos, model_names

__all__ = ["LoadedModel", "load_model", "missing_zoos", "model_names"]
