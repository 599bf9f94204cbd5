"""The calling side of the data plane: who serves what, which replica takes a request, and the exchange with
it.
"""
