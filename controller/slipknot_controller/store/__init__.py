"""Where desired state lives: one small interface, several stores."""

from .interface import Change, Entry, RevisionConflict, StateStore, StoreClosed, WatchOverflow
from .memory import MemoryStore
from .sqlite import SqliteStore

__all__ = [
    "Change",
    "Entry",
    "MemoryStore",
    "RevisionConflict",
    "SqliteStore",
    "StateStore",
    "StoreClosed",
    "WatchOverflow",
]
