"""A script that serves the FastAPI application, as users write one: `python -m …script PORT`."""

import sys

from slipknot import serve

from . import serve_app

if __name__ == "__main__":
    serve.start(http_options={"port": int(sys.argv[1])})
    serve.run(serve_app.fastapi, blocking=True)
