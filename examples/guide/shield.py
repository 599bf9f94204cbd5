"""`asyncio.shield` protects a local coroutine from the cancellation of its request."""

import asyncio
import time

import requests

from slipknot import serve


@serve.deployment
class SnoringSleeper:
    async def snore(self):
        await asyncio.sleep(1)
        print("ZZZ")

    async def __call__(self):
        try:
            print("SnoringSleeper received request!")
            # The cancellation does not reach snore().
            await asyncio.shield(self.snore())
        except asyncio.CancelledError:
            print("SnoringSleeper's request was cancelled!")


app = SnoringSleeper.bind()

if __name__ == "__main__":
    serve.run(app)
    try:
        requests.get("http://localhost:8000", timeout=0.5)
    except requests.exceptions.Timeout:
        print("The client has left.")
    time.sleep(1.5)  # snore() still runs, and its words must reach this console
