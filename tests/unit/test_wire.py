"""What goes over the wire between worker, guard and children, in whatever pieces it comes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hueyctl.process.wire import Unpacker


@given(st.lists(st.binary(max_size=300)), st.lists(st.integers(1, 400)))
def test_messages_come_out_whole_and_in_order_however_the_stream_is_cut(messages: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(len(message).to_bytes(4) + message for message in messages)
    unpacker, found = Unpacker(largest=300), []
    for size in cuts:
        piece, stream = stream[:size], stream[size:]
        found += unpacker.feed(piece)
    found += unpacker.feed(stream)
    assert found == messages


def test_of_a_message_that_is_not_whole_nothing_is_copied_again() -> None:
    """Twenty megabytes in pieces of 64 KiB took ten seconds when all of it was put together anew at each piece."""
    unpacker, piece = Unpacker(), bytes(64 * 1024)
    unpacker.feed((400 * len(piece)).to_bytes(4) + piece)
    rest = unpacker._rest
    for _ in range(398):
        assert unpacker.feed(piece) == []
        assert unpacker._rest is rest
    assert [len(message) for message in unpacker.feed(piece)] == [400 * len(piece)]


def test_a_message_larger_than_it_may_be_is_refused_by_its_length_alone() -> None:
    assert Unpacker(largest=5).feed(b"\0\0\0\5hello") == [b"hello"]
    with pytest.raises(ValueError, match="6 bytes"):
        Unpacker(largest=5).feed(b"\0\0\0\6")
