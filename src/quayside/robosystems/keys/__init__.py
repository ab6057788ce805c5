"""API keys: made, checked, revoked, cleaned up. What a key may be used for is decided by who asks."""

from quayside.robosystems.keys.cache import KeyCache
from quayside.robosystems.keys.cleanup import Cleanup, cleanup
from quayside.robosystems.keys.hashing import hashing_secret
from quayside.robosystems.keys.store import ApiKey, ApiKeys, NewKey

__all__ = ["ApiKey", "ApiKeys", "Cleanup", "KeyCache", "NewKey", "cleanup", "hashing_secret"]
