"""A WebSocket client for websocket_echo.py: `pip install websockets`."""

from websockets.sync.client import connect


def main() -> None:
    with connect("ws://localhost:8000") as websocket:
        websocket.send("Eureka!")
        assert websocket.recv() == "Eureka!"
        websocket.send("I've found it!")
        assert websocket.recv() == "I've found it!"
    print("Every echo came back.")


if __name__ == "__main__":
    main()
