"""Several routes and HTTP methods; both functions are called `root`, and both stay routable."""

import requests
from fastapi import FastAPI

from slipknot import serve

api = FastAPI()


@serve.deployment
@serve.ingress(api)
class MyFastAPIDeployment:
    @api.get("/")
    def root(self):
        return "Hello, world!"

    @api.post("/{subpath}")
    def root(self, subpath: str):  # noqa: F811 - the guide has it so
        return f"Hello from {subpath}!"


app = MyFastAPIDeployment.bind()

if __name__ == "__main__":
    serve.run(app, route_prefix="/hello")
    response = requests.post("http://localhost:8000/hello/Serve", timeout=10)
    assert response.json() == "Hello from Serve!"
    print(response.json())
