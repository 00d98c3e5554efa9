"""These tests need torchvision, timm and transformers, which `make test-zoo` installs in an environment of its own."""

from __future__ import annotations

import importlib.util

PACKAGES = ("torchvision", "timm", "transformers")
collect_ignore_glob = [] if all(importlib.util.find_spec(name) for name in PACKAGES) else ["test_*.py"]
