"""Text that users or jobs wrote, made harmless for a terminal: nothing in it can move the cursor, colour or lie."""

from __future__ import annotations

import codecs
import re
from functools import cache

# C0, DEL and C1; the marks that turn the reading direction, with which a name can look like another; lone surrogates.
_UNSEEN = r"\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
_NAMED = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def one_line(text: str) -> str:
    """The text on one line, with what is unseen spelled out: `\\n`, `\\x1b`, `\\u202e`."""
    if text.isascii() and text.isprintable():
        return text
    return _unseen().sub(_spelled, text)


def lines(text: str) -> str:
    """The same for a text of several lines: line ends and tabs stay, a lone carriage return ends a line too."""
    if text.isascii() and text.isprintable():
        return text
    return _unseen_in_lines().sub(_spelled, text.replace("\r\n", "\n").replace("\r", "\n"))


def json_text(text: str) -> str:
    """JSON text in which what is unseen is escaped: it means the same, and does nothing to a terminal."""
    if text.isascii() and "\x7f" not in text:
        return text
    return _unseen().sub(lambda match: f"\\u{ord(match[0]):04x}", text)


class Decoder:
    """Bytes that come in pieces, as harmless text: what isn't UTF-8 is replaced, a character cut in two is whole."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    def feed(self, data: bytes, *, last: bool = False) -> str:
        """What can be shown by now."""
        text = self._held + self._decoder.decode(data, last)
        # It may be the first half of a line end.
        self._held = "\r" if text.endswith("\r") and not last else ""
        return lines(text.removesuffix("\r") if self._held else text)


# Compiled when there is something to look for: 2 ms, and most of what commands say is plain.
@cache
def _unseen() -> re.Pattern[str]:
    return re.compile(f"[{_UNSEEN}]")


@cache
def _unseen_in_lines() -> re.Pattern[str]:
    return re.compile(f"(?![\n\t])[{_UNSEEN}]")


def _spelled(match: re.Match[str]) -> str:
    code = ord(match[0])
    return _NAMED.get(match[0]) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")
