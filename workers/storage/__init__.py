"""Where deliverables are kept: the store that STORAGE_URL names.

What lies under its final name is complete. What is on its way lies elsewhere, in the same store or beside it.
"""

from __future__ import annotations

from service.core.errors import StorageUnavailable
from service.settings import Settings
from workers.storage.folder import LocalStorage
from workers.storage.kinds import Digest, Partial, Storage, Stored

__all__ = ["Digest", "Partial", "Storage", "Stored", "open_storage"]


def open_storage(settings: Settings) -> Storage:
    """Raises StorageUnavailable. What speaks to object stores is loaded only where one is used."""
    scheme, mark, _ = settings.storage_url.partition("://")
    if not mark:
        return LocalStorage.open(settings.storage_dir, settings.state_dir)
    try:
        from workers.storage.objects import ObjectStorage
    except ModuleNotFoundError as error:
        if error.name != "obstore":
            raise
        raise StorageUnavailable(
            f"STORAGE_URL is {scheme}://…, for which a package is missing: pip install 'jarai-receiver[{scheme}]'"
        ) from None
    return ObjectStorage.open(settings)
