"""Shared kernel of all roles: ids, spec, errors, deadlines, rpc, routing. Imports nothing of slipknot but the
contracts.
"""

from .compiled import search_path

__path__ = search_path(__name__, __path__)
