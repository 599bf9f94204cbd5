"""The bytes of messages: what protobuf reads out of them, and which frames travel together in a session's."""

from hypothesis import given
from hypothesis import strategies as st

from slipknot_core.routing.messages import (
    MAX_FRAMES,
    MAX_MESSAGE_BYTES,
    BodyFrame,
    Buffer,
    Frame,
    call_message,
    session_message,
)
from slipknot_proto.v1 import replica_pb2

SIZES = st.lists(
    st.sampled_from([0, 1, 100, 1000, 30_000, MAX_MESSAGE_BYTES, 3 * MAX_MESSAGE_BYTES]), max_size=400
)
KINDS = (bytes, bytearray, memoryview)
CHUNKS = st.lists(
    st.builds(
        lambda size, kind: kind(bytes([size % 251]) * size),
        st.sampled_from([1, 2, 127, 128, 1023, 1024, 16_384, 70_000, 2_097_152]),
        st.sampled_from(KINDS),
    ),
    min_size=1,
    max_size=5,
)
OPEN = replica_pb2.CallFrame(open={"request_id": "a", "http": {"method": "GET", "path": "/ä"}})
CREDIT = replica_pb2.CallFrame(credit={"byte_count": 77})
START = replica_pb2.ReplyFrame(response_start={"status": 200, "headers": [b"a", b"b"]})


def chunk_of(chunks: list[Buffer], *, end_of_body: bool) -> replica_pb2.BodyChunk:
    first, *more = map(bytes, chunks)
    return replica_pb2.BodyChunk(data=first, more=more, end_of_body=end_of_body)


def session_response(posted: list[tuple[int, Frame]]) -> replica_pb2.SessionResponse:
    return replica_pb2.SessionResponse.FromString(session_message(posted))


@given(CHUNKS, st.booleans(), st.booleans())
def test_protobuf_reads_what_it_would_have_written(
    chunks: list[Buffer], is_reply: bool, end_of_body: bool
) -> None:
    """Frames of bodies among others, each way, for both kinds of streams."""
    written = BodyFrame(is_reply=is_reply, chunks=chunks[:1], end_of_body=end_of_body)
    for chunk in chunks[1:]:
        written.add(chunk)
    body = chunk_of(chunks, end_of_body=end_of_body)
    if is_reply:
        message = call_message([START, written, START])
        frames = [START, replica_pb2.ReplyFrame(body=body), START]
        assert replica_pb2.CallResponse.FromString(message) == replica_pb2.CallResponse(frames=frames)
        assert session_response([(3, written)]) == replica_pb2.SessionResponse(
            stream_ids=[3], frames=frames[1:2]
        )
    else:
        message = call_message([OPEN, CREDIT, written])
        sent = [OPEN, CREDIT, replica_pb2.CallFrame(body=body)]
        assert replica_pb2.CallRequest.FromString(message) == replica_pb2.CallRequest(frames=sent)
        posted: list[tuple[int, Frame]] = [(2**31, written), (5, CREDIT)]
        parsed = replica_pb2.SessionRequest.FromString(session_message(posted))
        assert parsed.stream_ids[0] == 2**31
        assert parsed.frames[0] == sent[2]


def test_the_empty_end_of_a_body() -> None:
    """It has an empty chunk, and no data."""
    (frame,) = replica_pb2.CallRequest.FromString(
        call_message([BodyFrame(is_reply=False, chunks=[b""], end_of_body=True)])
    ).frames
    assert frame == replica_pb2.CallFrame(body={"end_of_body": True})


@given(SIZES)
def test_all_frames_travel_in_order_and_within_bounds(sizes: list[int]) -> None:
    """Each message has a frame, and no more than it may; more bytes than it may only if that is one frame."""
    frames = [replica_pb2.ReplyFrame(body={"data": bytes(size)}) for size in sizes]
    posted: list[tuple[int, Frame]] = [
        (number, BodyFrame(is_reply=True, chunks=[bytes(size)]) if number % 2 else frame)
        for number, (size, frame) in enumerate(zip(sizes, frames, strict=True))
    ]
    travelled: list[int] = []
    while posted:
        message = session_response(posted)
        assert 1 <= len(message.stream_ids) <= MAX_FRAMES
        assert len(message.frames) == 1 or sum(f.ByteSize() for f in message.frames) <= MAX_MESSAGE_BYTES
        assert len(message.stream_ids) == len(message.frames)
        travelled += message.stream_ids
    assert travelled == list(range(len(sizes)))
