"""The calling side of the data plane: who serves what, which replica takes a request, and the exchange with
it.
"""

from ..compiled import search_path

__path__ = search_path(__name__, __path__)
