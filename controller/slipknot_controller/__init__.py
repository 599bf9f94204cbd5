"""The controller: desired state in, observed state made equal to it, routing snapshots out. Never runs user
code.
"""
