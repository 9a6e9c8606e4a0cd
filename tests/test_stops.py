"""Stop strings: the same cut for every chunking, nothing given out that a match takes back."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lhrm_server.stops import StopMatcher, prefix_at_end


def run(stops, *pieces):
    matcher = StopMatcher(stops)
    given_out = "".join(matcher.feed(piece) for piece in pieces) + matcher.finish()
    return given_out, matcher.matched


@pytest.mark.parametrize(
    ("stops", "text", "expected"),
    [
        (("END",), "a END b", ("a ", "END")),
        (("END",), "a EN", ("a EN", None)),
        (("END",), "ENEND", ("EN", "END")),
        (("aab",), "aaab", ("a", "aab")),
        (("x", "y"), "by x", ("b", "y")),
        # Both end at the same character: the longest wins.
        (("ab", "xab"), "1xab2", ("1", "xab")),
        # The text reaches the end of "ab" first, whatever follows.
        (("abc", "ab"), "1abc", ("1", "ab")),
        (("abcd", "bc"), "abcd", ("a", "bc")),
        (("é🤔",), "xé🤔y", ("x", "é🤔")),
        (("</think>",), "a</think>b", ("a", "</think>")),
        (("\n\n",), "a\nb\n\nc", ("a\nb", "\n\n")),
        ((), "all of it", ("all of it", None)),
        (("all",), "all", ("", "all")),
    ],
)
def test_cuts(stops, text, expected):
    assert run(stops, text) == expected
    assert run(stops, *text) == expected


def test_what_may_begin_a_stop_string_waits_and_the_rest_does_not():
    matcher = StopMatcher(("END", "NO"))
    assert [matcher.feed(piece) for piece in ("aE", "N", "Ex", "N", "O", "z")] == ["a", "", "ENEx", "", "", ""]
    assert (matcher.matched, matcher.finish()) == ("NO", "")


@pytest.mark.parametrize(
    ("text", "size"), [("", 0), ("a", 1), ("xa", 1), ("xaa", 2), ("xaab", 0), ("aaa", 2), ("b", 0)]
)
def test_prefix_at_end(text, size):
    assert prefix_at_end(text, ("aab",)) == size


TEXT = st.text("ab<", max_size=30)


@given(st.lists(st.text("ab<", min_size=1, max_size=4), max_size=4), TEXT, st.lists(st.integers(0, 30), max_size=5))
def test_any_split_gives_what_a_search_character_by_character_gives(stops, text, cuts):
    expected = text, None
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            longest = max(ending, key=len)
            expected = text[: end - len(longest)], longest
            break
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    assert run(stops, *[text[a:b] for a, b in pairwise(edges)]) == expected
