"""Which frames travel together in one message of a session."""

from hypothesis import given
from hypothesis import strategies as st

from slipknot_core.routing.session import MAX_FRAMES, MAX_MESSAGE_BYTES, together
from slipknot_proto.v1 import replica_pb2

SIZES = st.lists(
    st.sampled_from([0, 1, 100, 1000, 30_000, MAX_MESSAGE_BYTES, 3 * MAX_MESSAGE_BYTES]), max_size=400
)


def frame(size: int) -> replica_pb2.ReplyFrame:
    return replica_pb2.ReplyFrame(body=replica_pb2.BodyChunk(data=bytes(size)))


@given(SIZES)
def test_all_frames_travel_in_order_and_within_bounds(sizes: list[int]) -> None:
    """Each message has a frame, and no more than it may; more bytes than it may only if that is one frame."""
    posted = [(number, frame(size)) for number, size in enumerate(sizes)]
    travelled: list[int] = []
    while posted:
        batch = together(posted)
        assert 1 <= len(batch) <= MAX_FRAMES
        assert len(batch) == 1 or sum(f.ByteSize() for _, f in batch) <= MAX_MESSAGE_BYTES
        travelled += [number for number, _ in batch]
    assert travelled == list(range(len(sizes)))
