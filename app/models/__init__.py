"""Models named by content: the manifest, and the store that fetches and keeps them."""

from app.models.errors import ModelUnavailable
from app.models.manifest import Manifest, Model, ModelFile, load_manifest
from app.models.store import ModelStore

__all__ = ["Manifest", "Model", "ModelFile", "ModelStore", "ModelUnavailable", "load_manifest"]
