"""Where desired state lives: one small interface, several stores."""

from .etcd import EtcdStore, Fence
from .etcd_client import EtcdClient, EtcdOptions
from .interface import (
    Change,
    Entry,
    Fenced,
    RevisionConflict,
    StateStore,
    StoreClosed,
    StoreRefused,
    StoreUnavailable,
    WatchOverflow,
)
from .memory import MemoryStore
from .sqlite import SqliteStore

__all__ = [
    "Change",
    "Entry",
    "EtcdClient",
    "EtcdOptions",
    "EtcdStore",
    "Fence",
    "Fenced",
    "MemoryStore",
    "RevisionConflict",
    "SqliteStore",
    "StateStore",
    "StoreClosed",
    "StoreRefused",
    "StoreUnavailable",
    "WatchOverflow",
]
