"""Stream numbers as they come: each `yield` reaches the client at once, as a chunk of its own."""

import time
from collections.abc import Generator

import requests
from starlette.requests import Request
from starlette.responses import StreamingResponse

from slipknot import serve


@serve.deployment
class StreamingResponder:
    def generate_numbers(self, max: int) -> Generator[str, None, None]:
        for i in range(max):
            yield str(i)
            time.sleep(0.1)

    def __call__(self, request: Request) -> StreamingResponse:
        max = request.query_params.get("max", "25")
        gen = self.generate_numbers(int(max))
        return StreamingResponse(gen, status_code=200, media_type="text/plain")


app = StreamingResponder.bind()

if __name__ == "__main__":
    serve.run(app)
    response = requests.get("http://localhost:8000?max=10", stream=True, timeout=10)
    start = time.time()
    response.raise_for_status()
    for chunk in response.iter_content(chunk_size=None, decode_unicode=True):
        print(f"Got result {round(time.time() - start, 1)}s after start: '{chunk}'")
