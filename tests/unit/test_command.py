"""Placeholders in argument vectors: what is replaced, what is left alone, and that values are never looked at again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hueyctl.model.command import alone, placeholders, render

names = st.from_regex(r"[a-z_][a-z0-9_]{0,5}", fullmatch=True)
anything = st.text(max_size=30)


@pytest.mark.parametrize(
    ("element", "params", "expected"),
    [
        ("{url}", {"url": "http://x"}, ("http://x",)),
        ("--out={out}.gz", {"out": "a b"}, ("--out=a b.gz",)),
        ("{a}{b}", {"a": "1", "b": "2"}, ("12",)),
        ("{n}", {"n": 3}, ("3",)),
        ("{x}", {"x": 1.0}, ("1",)),
        ("{x}", {"x": 0.1}, ("0.1",)),
        ("{flag}", {"flag": True}, ("true",)),
        ("{empty}", {"empty": ""}, ("",)),
        ("{{url}}", {"url": "x"}, ("{url}",)),
        ("a{{url}}{url}", {"url": "x"}, ("a{url}x",)),
    ],
)
def test_a_placeholder_becomes_its_parameter(element: str, params: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert render([element], params) == expected


@pytest.mark.parametrize(
    "element", ["{}", "${HOME}", "{ url }", "{Url}", "{1}", '{"a": 1}', "{url", "url}", "{a-b}", "%s"]
)
def test_braces_around_anything_else_are_text(element: str) -> None:
    assert render([element], {"url": "x"}) == (element,)
    assert placeholders([element]) == set()


def test_an_array_alone_in_an_element_becomes_as_many_arguments_as_it_has_elements() -> None:
    assert render(["ls", "{files}"], {"files": ["a b", 2, True, ["x"]]}) == ("ls", "a b", "2", "true", '["x"]')
    assert render(["ls", "{files}"], {"files": []}) == ("ls",)


def test_an_absent_parameter_drops_the_element_that_is_it_alone_and_is_empty_text_elsewhere() -> None:
    assert render(["ls", "{option}", "--color={option}"], {}) == ("ls", "--color=")


def test_the_names_in_braces_are_found_and_literals_are_none() -> None:
    assert placeholders(["{a}", "x{b}y{a}", "{{c}}", "{}"]) == {"a", "b"}
    assert alone("{a}") == "a"
    assert alone("{a}{b}") is alone("{{a}}") is alone("x") is None


@given(anything, names, anything, anything)
def test_a_value_arrives_as_it_is_whatever_it_holds(value: str, name: str, before: str, after: str) -> None:
    """Quotes, `$(…)`, newlines and braces in a value are data: they are neither split nor replaced again."""
    before, after = before.replace("{", "").replace("}", ""), after.replace("{", "").replace("}", "")
    assert render([f"{before}{{{name}}}{after}"], {name: value}) == (before + value + after,)


@given(st.lists(anything), st.dictionaries(names, anything))
def test_without_arrays_and_absences_there_are_as_many_arguments_as_elements(
    elements: list[str], params: dict[str, str]
) -> None:
    params = {**dict.fromkeys(placeholders(elements), ""), **params}
    assert len(render(elements, params)) == len(elements)


@given(st.lists(anything))
def test_text_without_placeholders_and_literals_is_left_alone(elements: list[str]) -> None:
    if not placeholders(elements) and not any("{{" in element for element in elements):
        assert render(elements, {"x": "y"}) == tuple(elements)
