"""Signed links: good for their time, for what they were made for, and for nothing else."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.roles import BadInput
from app.security.links import BadLink, Links

KEY = "raw_inputs/2026/11/21/a_1.wav"
LINKS = Links(b"s" * 32)


def parts(link: str) -> dict[str, str]:
    """What `check` is given when somebody follows `link`."""
    url = urlsplit(link)
    assert not url.netloc and url.path.startswith("/objects/")
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    return {"key": url.path.removeprefix("/objects/"), **query}


def test_a_link_opens_what_it_was_made_for() -> None:
    given = parts(LINKS.link(KEY, "ann & co|é"))
    assert given["key"] == KEY and given["owner"] == "ann & co|é"
    LINKS.check(**given)


@pytest.mark.parametrize(
    "change",
    [
        {"key": "raw_inputs/2026/11/21/a_2.wav"},
        {"key": KEY + "x"},
        {"key": ""},
        {"owner": "ben"},
        {"owner": ""},
        {"expires": "99999999999"},
        {"expires": ""},
        {"expires": "soon"},
        {"signature": ""},
        {"signature": "0" * 64},
        {"signature": "é\udc80"},
        {"key": KEY[:-1], "expires": ""},
    ],
)
def test_an_altered_link_opens_nothing(change: dict[str, str]) -> None:
    given = {**parts(LINKS.link(KEY, "ann")), **change}
    with pytest.raises(BadLink, match="altered") as refused:
        LINKS.check(**given)
    assert refused.value.http_status == 403


def test_what_moves_from_one_field_to_another_is_altered() -> None:
    given = parts(LINKS.link("a/b1", "7ann"))
    moved = {**given, "key": "a/b", "expires": "1" + given["expires"]}
    for change in (
        moved,
        {**given, "owner": given["expires"][-1] + "7ann", "expires": given["expires"][:-1]},
    ):
        with pytest.raises(BadLink):
            LINKS.check(**change)


def test_a_link_runs_out() -> None:
    LINKS.check(**parts(LINKS.link(KEY, "ann", 60)))
    for seconds in (0, -1, -3600):
        with pytest.raises(BadLink, match="run out"):
            LINKS.check(**parts(LINKS.link(KEY, "ann", seconds)))


def test_another_secret_makes_other_links() -> None:
    with pytest.raises(BadLink, match="altered"):
        LINKS.check(**parts(Links(b"t" * 32).link(KEY, "ann")))


def test_no_link_is_made_for_what_is_no_key() -> None:
    with pytest.raises(BadInput):
        LINKS.link("../secret", "ann")


@given(st.tuples(*[st.text(max_size=12)] * 4))
def test_nothing_made_up_opens_anything(given: tuple[str, str, str, str]) -> None:
    with pytest.raises(BadLink):
        LINKS.check(*given)
