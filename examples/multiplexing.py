"""Multiplexing: two replicas share five models; a request goes where its model is.

python examples/multiplexing.py
"""

import asyncio

import httpx
from starlette.requests import Request

from slipknot import serve


class Model:
    """Stands for weights that take a while to load."""

    def __init__(self, model_id: str) -> None:
        self.model_id = model_id

    def __del__(self) -> None:
        print(f"unloaded {self.model_id}", flush=True)


@serve.deployment(num_replicas=2)
class Models:
    # 1. A replica holds three models; the one that was not asked for longest makes room.
    @serve.multiplexed(max_num_models_per_replica=3)
    async def load(self, model_id: str) -> Model:
        print(f"loading {model_id}", flush=True)
        await asyncio.sleep(0.1)
        return Model(model_id)

    # 2. The caller names the model in the header `serve_multiplexed_model_id`.
    async def __call__(self, request: Request) -> str:
        model = await self.load(serve.get_multiplexed_model_id())
        return f"{model.model_id} answers {request.query_params['q']}"


app = Models.bind()

if __name__ == "__main__":
    serve.run(app)
    with httpx.Client(base_url="http://127.0.0.1:8000", timeout=30) as client:
        for question in range(2):
            for name in ("ant", "bee", "cat", "dog", "eel"):
                headers = {"serve_multiplexed_model_id": name}
                print(client.get("/", params={"q": question}, headers=headers).text)
