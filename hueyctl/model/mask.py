"""Keeps the values of secret parameters out of everything that is shown: texts, JSON values, and bytes in pieces."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from hueyctl.model.run import Message, Run

STARS = "***"

# Replacing every "1" or "no" in a log would make it unreadable and tell the secret by its absence.
_SHORTEST = 4


class Mask:
    """Replaces every literal occurrence of some secret values by `***`; falsy where it has nothing to replace.

    Values shorter than 4 characters, and booleans, are left alone: they are masked as parameters only.
    """

    def __init__(self, secrets: Iterable[object] = ()) -> None:
        # The longest first, so that a secret which begins with another one is replaced whole.
        self._words = sorted({form for secret in secrets for form in _forms(secret)}, key=len, reverse=True)
        self._text = re.compile("|".join(map(re.escape, self._words))) if self._words else None

    @classmethod
    def of(cls, *runs: Run) -> Mask:
        """What hides the secret parameters of these runs."""
        return cls.of_messages(run.message for run in runs)

    @classmethod
    def of_messages(cls, messages: Iterable[Message]) -> Mask:
        """What hides the secret parameters in the messages of some runs."""
        return cls(each.params[name] for each in messages for name in each.secrets if name in each.params)

    def __bool__(self) -> bool:
        return self._text is not None

    def text(self, text: str) -> str:
        """The same text without the secrets."""
        return self._text.sub(STARS, text) if self._text else text

    def optional(self, text: str | None) -> str | None:
        """The same for a text that may be absent."""
        return None if text is None else self.text(text)

    def value(self, value: Any) -> Any:
        """The same JSON value without the secrets, in its keys too."""
        if not self._text:
            return value
        match value:
            case str():
                return self.text(value)
            case dict():
                return {self.text(str(key)): self.value(item) for key, item in value.items()}
            case list() | tuple():
                return [self.value(item) for item in value]
            case int() | float() if not isinstance(value, bool) and self._text.fullmatch(str(value)):
                return STARS
            case _:
                return value

    def whole(self, data: bytes) -> bytes:
        """The same bytes without the secrets."""
        stream = self.stream()
        return stream.feed(data) + stream.end()

    def end(self, data: bytes) -> bytes:
        """The same for the last of some bytes, whose beginning may be the rest of a secret that was cut in two."""
        rest = max((_rest_of(word.encode(), data) for word in self._words), default=0)
        return self.whole(data[rest:])

    def stream(self) -> MaskedStream:
        """For bytes that come in pieces: a secret cut in two by a piece's end is still found."""
        return MaskedStream(word.encode() for word in self._words)


class MaskedStream:
    """Masks bytes that come in pieces, holding back no more than what may be the beginning of a secret."""

    def __init__(self, words: Iterable[bytes]) -> None:
        self._words = tuple(words)
        self._pattern = re.compile(b"|".join(map(re.escape, self._words))) if self._words else None
        self._held = b""

    def feed(self, piece: bytes) -> bytes:
        """What can be shown by now."""
        if not self._pattern:
            return piece
        data = self._held + piece
        safe = len(data) - self._unfinished(data)
        shown, position = [], 0
        for match in self._pattern.finditer(data):
            if match.start() >= safe:
                break
            shown += [data[position : match.start()], STARS.encode()]
            position = match.end()
        cut = max(position, safe)
        shown.append(data[position:cut])
        self._held = data[cut:]
        return b"".join(shown)

    def end(self) -> bytes:
        """What was held back, now that nothing follows."""
        held, self._held = self._held, b""
        return self._pattern.sub(STARS.encode(), held) if self._pattern else held

    def _unfinished(self, data: bytes) -> int:
        """The length of the longest end of `data` that begins a secret."""
        longest = max(map(len, self._words))
        for length in range(min(longest - 1, len(data)), 0, -1):
            end = data[-length:]
            if any(len(word) > length and word.startswith(end) for word in self._words):
                return length
        return 0


def _rest_of(word: bytes, data: bytes) -> int:
    """How much of the beginning of `data` is the end of `word`, and not all of it."""
    lengths = range(min(len(word) - 1, len(data)), 0, -1)
    return next((length for length in lengths if data.startswith(word[-length:])), 0)


def _forms(secret: object) -> Iterable[str]:
    """The ways in which a value appears in what a job prints: itself, in JSON, and in Python's repr."""
    if isinstance(secret, list | tuple):
        for item in secret:
            yield from _forms(item)
    elif isinstance(secret, dict):
        for item in secret.values():  # its keys are words that others use, too
            yield from _forms(item)
    elif isinstance(secret, str):
        import json

        for form in (
            secret,
            json.dumps(secret, ensure_ascii=False)[1:-1],
            json.dumps(secret)[1:-1],
            repr(secret)[1:-1],
        ):
            if len(form) >= _SHORTEST:
                yield form
    elif isinstance(secret, int | float) and not isinstance(secret, bool) and len(str(secret)) >= _SHORTEST:
        yield str(secret)
