"""What worker and guard, and guard and warm child, say to each other: length-prefixed JSON on a stream socket."""

from __future__ import annotations

import json

import msgspec

from hueyctl.model.outcome import AnyOutcome
from hueyctl.process.spec import AttemptSpec, Ended, StopReason

READ_SIZE = 64 * 1024  # more would be mapped and unmapped at each call


class Join(msgspec.Struct, frozen=True, tag="join"):
    """The descriptor that comes along is the channel of one more of the worker's threads."""


class Start(msgspec.Struct, frozen=True, tag="start"):
    """Start this attempt; an `Over` answers it, by the same channel. `env` is the spec's environment, which is left out
    there: kilobytes, and mostly (None) those of the last start on this channel."""

    spec: AttemptSpec
    env: dict[str, str] | None


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """Stop the attempt of this token, which came by the same channel; one that has ended already is no error."""

    token: str
    reason: StopReason


class Tick(msgspec.Struct, frozen=True, tag="tick"):
    """The worker is alive; a `Ready` says that the guard is, too."""


class Recycle(msgspec.Struct, frozen=True, tag="recycle"):
    """Replace every warm child before its next attempt."""


Request = Join | Tick | Recycle | Start | Stop


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The guard holds its lock and takes requests."""


class Over(msgspec.Struct, frozen=True, tag="over"):
    """An attempt ended."""

    ended: Ended


Reply = Ready | Over

_encoder = msgspec.json.Encoder()


def pack(message: Request | Reply | Call) -> bytes:
    """`message` as it goes over the wire."""
    try:
        payload = _encoder.encode(message)
    except UnicodeEncodeError:
        # An environment, an argument or a path may hold bytes that aren't UTF-8, as lone surrogates: only the
        # standard library's JSON carries those.
        payload = json.dumps(msgspec.to_builtins(message)).encode()
    return len(payload).to_bytes(4) + payload


class Unpacker:
    """Cuts a stream into messages, given as bytes to `feed`; `decode_request` and `decode_over` read them.

    A message costs in proportion to its size, in however many pieces it comes. One of more than `largest` bytes (of
    whoever isn't to be trusted) is a `ValueError`.
    """

    def __init__(self, *, largest: int | None = None) -> None:
        self._rest = bytearray()
        self._missing = 0  # so many more bytes, and the first message of `_rest` is whole
        self._largest = largest

    def feed(self, piece: bytes) -> list[bytes]:
        """The messages that are whole now."""
        buffer = piece
        if self._rest:
            self._rest += piece
            self._missing -= len(piece)
            if self._missing > 0:
                return []
            buffer = bytes(self._rest)
        whole, start, size, needed = [], 0, len(buffer), 4
        while size - start >= 4:
            length = int.from_bytes(buffer[start : start + 4])
            if self._largest is not None and length > self._largest:
                raise ValueError(f"a message of {length} bytes")
            if start + 4 + length > size:
                needed = 4 + length
                break
            whole.append(buffer[start + 4 : start + 4 + length])
            start += 4 + length
        self._rest = bytearray(buffer[start:])
        self._missing = needed - len(self._rest)
        return whole


_requests: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_overs: msgspec.json.Decoder[Over] = msgspec.json.Decoder(Over)


def decode_request(payload: bytes) -> Request:
    """What the worker asked."""
    try:
        return _requests.decode(payload)
    except msgspec.DecodeError:
        request: Request = msgspec.convert(json.loads(payload), Request)  # lone surrogates, as in `pack`
        return request


def decode_over(payload: bytes) -> Over:
    """What the guard answered."""
    try:
        return _overs.decode(payload)
    except msgspec.DecodeError:
        over: Over = msgspec.convert(json.loads(payload), Over)
        return over


class Call(msgspec.Struct, frozen=True):
    """What the guard asks of a warm child: one call of its function."""

    token: str
    target: str
    dir: str
    pythonpath: tuple[str, ...]
    params: dict[str, object]
    run_env: dict[str, str]
    result_max: int
    input: str | None = None


class Answer(msgspec.Struct, frozen=True):
    """What a warm child says. One with another pid comes from a copy that the job forked, and counts for nothing;
    `fit`: nothing of the attempt is left in it."""

    token: str
    pid: int
    outcome: AnyOutcome
    fit: bool


_answers: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)


def decode_answer(payload: bytes) -> Answer | None:
    """What a warm child said; None for what is no answer at all: its descriptor is within the job's reach."""
    try:
        return _answers.decode(payload)
    except (msgspec.DecodeError, ValueError, RecursionError):  # ValueError: what isn't UTF-8
        return None
