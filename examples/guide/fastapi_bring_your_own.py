"""Serve an existing FastAPI application as it is."""

import requests
from fastapi import FastAPI

from slipknot import serve

api = FastAPI()


@api.get("/")
def f():
    return "Hello from the root!"


@serve.deployment
@serve.ingress(api)
class FastAPIWrapper:
    pass


app = FastAPIWrapper.bind()

if __name__ == "__main__":
    serve.run(app, route_prefix="/")
    response = requests.get("http://localhost:8000/", timeout=10)
    assert response.json() == "Hello from the root!"
    print(response.json())
