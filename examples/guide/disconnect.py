"""A client that leaves: the handler is cancelled at its next await."""

import asyncio
import time

import requests

from slipknot import serve


@serve.deployment
async def startled():
    try:
        print("Replica received request!")
        await asyncio.sleep(10_000)
    except asyncio.CancelledError:
        # Clean up here.
        print("Request got cancelled!")


app = startled.bind()

if __name__ == "__main__":
    serve.run(app)
    try:
        requests.get("http://localhost:8000", timeout=0.5)
    except requests.exceptions.Timeout:
        print("The client has left.")
    time.sleep(0.5)  # let the replica's words reach this console
