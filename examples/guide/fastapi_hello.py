"""FastAPI on a deployment: the class is its view."""

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


app = MyFastAPIDeployment.bind()

if __name__ == "__main__":
    serve.run(app, route_prefix="/hello")
    response = requests.get("http://localhost:8000/hello", timeout=10)
    assert response.json() == "Hello, world!"
    print(response.json())
