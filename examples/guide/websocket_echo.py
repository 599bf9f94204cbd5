"""WebSockets through FastAPI; the client is in websocket_client.py."""

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from slipknot import serve

api = FastAPI()


@serve.deployment
@serve.ingress(api)
class EchoServer:
    @api.websocket("/")
    async def echo(self, websocket: WebSocket):
        await websocket.accept()
        try:
            while True:
                text = await websocket.receive_text()
                await websocket.send_text(text)
        except WebSocketDisconnect:
            print("Client disconnected.")


app = EchoServer.bind()

if __name__ == "__main__":
    from websocket_client import main

    serve.run(app)
    main()
