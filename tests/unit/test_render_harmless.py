"""Nothing that users or jobs wrote reaches a terminal raw."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hueyctl.cli.harmless import Decoder, json_text, lines, one_line
from hueyctl.cli.render import encode

BIDI = {0x061C, 0x200E, 0x200F, 0x2028, 0x2029, 0xFEFF, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}
any_text = st.text(alphabet=st.characters(exclude_categories=[]))


def unseen(text: str) -> list[str]:
    """The characters that a terminal would act on, or that can't be written at all."""
    return [char for char in text if unicodedata.category(char) in {"Cc", "Cs"} or ord(char) in BIDI]


@given(any_text)
def test_a_line_holds_nothing_that_a_terminal_acts_on(text: str) -> None:
    assert unseen(one_line(text)) == []


@given(any_text)
def test_several_lines_keep_their_ends_and_tabs_and_nothing_else(text: str) -> None:
    assert set(unseen(lines(text))) <= {"\n", "\t"}


@given(st.text(alphabet=st.characters(min_codepoint=0x20, max_codepoint=0x7E)))
def test_plain_text_is_shown_as_it_is(text: str) -> None:
    assert one_line(text) == lines(text) == text


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("two\nlines", r"two\nlines"),
        ("\x9b2J", r"\x9b2J"),
        ("gpj\u202eexe", r"gpj\u202eexe"),
        ("[bold]markup[/bold]", "[bold]markup[/bold]"),
        ("Zoë 世界 🎉", "Zoë 世界 🎉"),
    ],
)
def test_what_is_unseen_is_spelled_out(written: str, shown: str) -> None:
    assert one_line(written) == shown


@given(st.dictionaries(st.text(), st.text()))
def test_json_means_the_same_and_holds_nothing_that_a_terminal_acts_on(document: dict[str, str]) -> None:
    text = encode(document).decode()
    assert json.loads(text) == document
    assert unseen(text.removesuffix("\n")) == []


def test_json_can_be_written_of_text_that_is_no_utf_8() -> None:
    """A path given in another encoding reaches Python as lone surrogates."""
    assert json.loads(encode({"path": ["caf\udce9"]})) == {"path": ["caf\\udce9"]}


def test_json_text_escapes_what_json_leaves_raw() -> None:
    assert json_text('"\x7f\x9b\u202e"') == '"\\u007f\\u009b\\u202e"'


@given(st.binary(), st.lists(st.integers(min_value=0, max_value=40)))
def test_output_decoded_in_pieces_is_output_decoded_at_once(data: bytes, cuts: list[int]) -> None:
    """Neither a character nor a line end that is cut in two by a read comes out differently."""
    whole = Decoder().feed(data, last=True)
    decoder, text, start = Decoder(), "", 0
    for cut in sorted(cuts):
        text += decoder.feed(data[start : max(start, cut)])
        start = max(start, cut)
    assert text + decoder.feed(data[start:], last=True) == whole
    assert set(unseen(whole)) <= {"\n", "\t"}


def test_a_progress_bar_becomes_lines() -> None:
    assert lines("10%\r20%\r\ndone") == "10%\n20%\ndone"
