"""What a connection answers where it takes no request: status and text, and the response's bytes. Pure."""

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from .server_state import SERVER_LINE

Refusal = tuple[int, str]
"""Status and text."""

HEAD_TOO_LARGE: Refusal = (431, "The request's head is too large.")
BODY_TOO_LARGE: Refusal = (413, "The request's body is too large.")
BODY_TOO_SLOW: Refusal = (408, "The request's body did not arrive in time.")
MALFORMED: Refusal = (400, "Invalid HTTP request received.")
PIPELINED_HANDSHAKE: Refusal = (400, "A WebSocket handshake must not be pipelined.")
UNKNOWN_CODING: Refusal = (501, "Only the transfer coding chunked is understood.")
TOO_MANY_CONNECTIONS: Refusal = (503, "Too many connections.")


def response(refusal: Refusal, request_id: str, date_line: bytes) -> bytes:
    """The whole response, which closes the connection.

    Args:
        refusal: What to say.
        request_id: The client's, or a new one.
        date_line: The header "date".
    """
    status, text = refusal
    body = text.encode()
    return b"".join(
        (
            STATUS_LINE[status],
            b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n" % len(body),
            b"connection: close\r\n",
            date_line,
            SERVER_LINE,
            b"x-request-id: ",
            request_id.encode("latin-1"),
            b"\r\n\r\n",
            body,
        )
    )
