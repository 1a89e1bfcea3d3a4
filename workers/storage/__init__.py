"""Where deliverables are kept: the store that STORAGE_URL names.

What lies under its final name is complete. What is on its way lies elsewhere, in the same store or beside it.
"""

from __future__ import annotations

from service.settings import Settings
from workers.storage.folder import LocalStorage
from workers.storage.kinds import Digest, Partial, Storage, Stored

__all__ = ["Digest", "Partial", "Storage", "Stored", "open_storage"]


def open_storage(settings: Settings) -> Storage:
    """Raises StorageUnavailable."""
    return LocalStorage.open(settings.storage_dir, settings.state_dir)
