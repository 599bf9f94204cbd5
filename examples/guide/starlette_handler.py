"""Handle the raw request: `__call__` gets a Starlette request, and returns anything that has a JSON form."""

import requests

from slipknot import serve


@serve.deployment
class Counter:
    def __call__(self, request):
        return request.query_params


app = Counter.bind()

if __name__ == "__main__":
    serve.run(app)
    response = requests.get("http://localhost:8000?a=b&c=d", timeout=10)
    assert response.json() == {"a": "b", "c": "d"}
    print(response.json())
