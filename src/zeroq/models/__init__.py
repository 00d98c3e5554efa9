"""MODEL strings to trained networks: the embedded default, zoos, users' files."""

from zeroq.models.loaded import LoadedModel
from zeroq.models.resolve import from_module, load_model, missing_zoos, model_names

__all__ = ["LoadedModel", "from_module", "load_model", "missing_zoos", "model_names"]
