"""Large WebSocket messages are cut and put together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipknot_core.errors import ProtocolError
from slipknot_core.websocket_pieces import PIECE_BYTES, Assembly, pieces
from slipknot_proto.v1 import replica_pb2

MESSAGES = st.one_of(
    st.builds(lambda text, times: text * times, st.text(), st.integers(0, 20_000)),
    st.builds(lambda data, times: data * times, st.binary(), st.integers(0, 20_000)),
)


@given(st.lists(st.tuples(MESSAGES, st.booleans()), max_size=5))
def test_messages_come_out_as_they_went_in(messages: list[tuple[str | bytes, bool]]) -> None:
    assembly = Assembly()
    for message, is_finished in messages:
        cut = list(pieces(message))
        if not is_finished and len(cut) > 1:
            for piece in cut[:-1]:
                assert assembly.add(piece)[0] is None
            continue  # its sender was cancelled
        whole = [assembly.add(piece) for piece in cut]
        assert [data for data, _ in whole[:-1]] == [None] * (len(cut) - 1)
        assert whole[-1][0] == message
        assert sum(size for _, size in whole) == len(message)
    assert repr(assembly).startswith("<Assembly ")


@given(MESSAGES)
def test_no_piece_is_large(message: str | bytes) -> None:
    assert all(piece.ByteSize() <= PIECE_BYTES + 16 for piece in pieces(message))


@pytest.mark.parametrize("more", [False, True])
def test_a_piece_must_continue_something_of_its_kind(more: bool) -> None:
    stray = replica_pb2.WebSocketMessage(text="x", continued=True, more=more)
    assembly = Assembly()
    with pytest.raises(ProtocolError, match="continues no message"):
        assembly.add(stray)
    assembly.add(replica_pb2.WebSocketMessage(binary=b"x", more=True))
    with pytest.raises(ProtocolError, match="continues no message"):
        assembly.add(stray)
