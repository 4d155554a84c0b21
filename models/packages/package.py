"""Model packages: where a net and all that is needed to use it come from."""

from __future__ import annotations

from pathlib import Path

from ...acquire.errors import ModelError, nearest_name
from .contents import ModelPackage, WeightsFile

__all__ = ["ModelPackage", "WeightsFile", "known_packages", "load_package"]

SHIPPED = Path(__file__).parent / "weights"


def known_packages() -> list[str]:
    """Return the names of the packages that come with cytoloop, sorted."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/rdf.yaml"))


def load_package(name_or_path: str | Path) -> ModelPackage:
    """Return a package; basics only so far."""
    raise ModelError(f"{name_or_path}: not yet {nearest_name(str(name_or_path), known_packages())}")
