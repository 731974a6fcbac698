"""What joins nodes on a Redis: publications of rooms, who is shown in them, and which nodes live."""

from roomkey.backends.redis.cluster.broker import Histories, RedisBroker
from roomkey.backends.redis.cluster.presence import RedisPresenceStore
from roomkey.backends.redis.cluster.registry import RedisNodeRegistry

__all__ = ["Histories", "RedisBroker", "RedisNodeRegistry", "RedisPresenceStore"]
