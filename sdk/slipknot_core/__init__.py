"""Shared kernel of all roles: ids, spec, errors, deadlines, rpc, routing. Imports nothing of slipknot but the
contracts.
"""
