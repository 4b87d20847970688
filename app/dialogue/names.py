"""Names that people say of themselves, in English."""

from __future__ import annotations

import re

_TITLE = r"(?:(?:Mr|Mrs|Ms|Miss|Dr|Doctor|Professor|Prof)\.?\s+)?"
_WORD = r"(?:O'|D'|Mc|Mac)?[^\W\d_a-z][^\W\d_A-Z]+(?:[-'’][^\W\d_]+)?"
_NAME = rf"{_TITLE}(?P<name>{_WORD}(?:\s+(?:(?:van|von|de|da|del|di|la|der|bin|al)\s+)*{_WORD}){{0,2}})"
_AFTER = r"(?=\s*(?:$|[.,;!?—–-]|and\b|but\b|from\b|by\b|with\b|here\b|speaking\b|calling\b|your\b|the\b))"
_BEFORE = r"(?:^|[.,;!?—–]\s*|\b(?:and|so|but|well|yes|yeah|hi|hello|hey|okay|ok)\s+)"

_SAYINGS = tuple(
    re.compile(f"{_BEFORE}(?i:{said})\\s+{_NAME}{after}")
    for said, after in (
        (r"my (?:(?:first|full|given) )?name(?:['’]s| is)(?: actually)?", _AFTER),
        (
            r"(?:(?:you|you all|people|they|everybody|friends|please)(?: can| may| could)? )*call me",
            _AFTER,
        ),
        (r"i(?:['’]m| am) (?:called|named)", _AFTER),
        (r"i(?:['’]m| am)", _AFTER),
        (r"(?:this|it)(?:['’]s| is)", r"(?=,?\s+(?:speaking|calling|here|on the (?:line|phone)|from)\b)"),
        (r"(?:hi|hello|hey|good (?:morning|afternoon|evening)),? (?:there,? )?this is", _AFTER),
    )
)

_PLAIN = 3
"""So many of them, the first, are followed by a name and nothing else."""

_NO_NAMES = frozenset(
    """
    african american arab asian australian austrian belgian black brazilian british canadian catholic chinese
    christian danish dutch egyptian english european finnish french german greek hindu indian iranian iraqi
    irish israeli italian jamaican japanese jewish korean latina latino lebanese mexican muslim nigerian
    norwegian pakistani persian polish portuguese protestant russian scottish serbian spanish swedish swiss
    syrian taiwanese texan thai turkish ukrainian vietnamese welsh
    monday tuesday wednesday thursday friday saturday sunday january february april june july august
    september october november december christmas easter
    absolutely afraid again all almost already also always at back busy certainly coming done fine from
    glad god going good great happy he here home in it just late maybe me not now of off ok okay on out over
    please ready really right she so sorry still sure thanks that the there they tired today tomorrow trying
    very we well what who yes you your
    dad daddy father grandma grandpa mom mommy mother mum nobody somebody someone anyone everyone
    """.split()
)
"""Words with a capital that are no names: peoples and faiths, days, and what recognisers write large."""
_ALSO_NAMES = frozenset("april august christian english french german irish june welsh".split())
"""Who is called so can say "my name is"."""


def name_said(text: str) -> str | None:
    """The name by which the speaker of `text` introduces themselves ("I'm Carol", "this is Bob speaking"),
    as written; None if they do not, or it is not plain. A name has a capital, as recognisers write it."""
    for number, saying in enumerate(_SAYINGS):
        for found in saying.finditer(text):
            name = found["name"]
            # "I'm" and "this is" are said of much else, "my name is" of names.
            wrong = _NO_NAMES if number >= _PLAIN else _NO_NAMES - _ALSO_NAMES
            if not any(word.lower() in wrong for word in name.split()):
                return str(name)
    return None
