"""Scientific names with and without their authors: "Jasminum fluminense Vell." and "Jasminum fluminense"."""

import unicodedata
from collections.abc import Iterator

_RANKS = {
    **dict.fromkeys(("subsp.", "subsp", "ssp.", "ssp"), "subsp."),
    **dict.fromkeys(("var.", "var"), "var."),
    **dict.fromkeys(("f.", "fo.", "forma"), "f."),
    **{written: written for written in ("subvar.", "subf.", "nothosubsp.", "nothovar.")},
}
_HYBRID = ("×", "x", "X")
_IN_DOUBT = ("cf.", "aff.")
# Words in lower case that belong to the authors.
_OF_AUTHORS = {"ex", "et", "in", "de", "du", "da", "la", "le", "van", "von", "der", "fil.", "non", "nec"}
_OF_AUTHORS |= {"auct.", "auctt.", "hort.", "sensu", "emend."}


def tidy(name: str) -> str:
    """The name in composed Unicode characters (NFC) with single spaces."""
    return " ".join(unicodedata.normalize("NFC", name).split())


def split_authors(name: str, species: str = "") -> tuple[str, str]:
    """The bare name, fit to be compared, and the authors in it ("" where there are none).

    The bare name is the genus, the epithet and what follows a rank (subsp., var., f. and their kin) or the
    hybrid sign, which becomes "×" joined to its word: "Mentha x piperita L." gives
    ("Mentha ×piperita", "L."). After the genus a word in lower case is taken for the epithet and one with a
    capital for an author, unless it is `species`, the epithet where that is known.
    """
    words = [word.strip(",;/") if number < 2 else word for number, word in enumerate(_joined(name))]
    known = species.strip(" ,;/")
    bare, authors = words[:1], []
    room = 2  # words that may still follow without a rank: Zea mays, Zea mays mays
    position = 1
    while position < len(words):
        word, following = words[position], "".join(words[position + 1 : position + 2])
        if (word in _RANKS and _follows_rank(following, word)) or (word in _IN_DOUBT and following):
            bare += [_RANKS.get(word, word), following]
            position += 1
            room = 0
        elif word.startswith("×"):
            bare.append(word)
            room = 2 if word[1:2].isupper() else 0  # a hybrid formula names a second species
        elif room and (word == known or _is_epithet(word)):
            bare.append(word)
            room -= 1
        else:
            authors.append(word)
            room = 0
        position += 1
    return " ".join(bare), " ".join(authors)


def genus_of(name: str) -> str:
    """The first word of a name; the sign of a hybrid genus stays with its word."""
    return next(_joined(name), "")


def epithet_of(name: str) -> str:
    """The word of the species in a name, "" where it names a genus alone."""
    words = split_authors(name)[0].split()
    return words[1] if len(words) > 1 and words[1] not in (*_RANKS, *_IN_DOUBT) else ""


def _joined(name: str) -> Iterator[str]:
    """The words of a name with the hybrid sign, also written x, joined to the word after it."""
    sign = ""
    for word in tidy(name).split():
        if word in _HYBRID and not sign:
            sign = "×"
        else:
            yield sign + word
            sign = ""
    if sign:
        yield sign


def _is_epithet(word: str) -> bool:
    return word[:1].islower() and word not in _OF_AUTHORS and word not in _RANKS


def _follows_rank(word: str, rank: str) -> bool:
    """Whether `word` is named by the rank before it: "f." may also be filius, as in "L. f. ex Hook."."""
    old_label = _RANKS[rank] != "f." and word[:1].isupper() and "." not in word  # subsp. Peploides
    return _is_epithet(word) or old_label


def printed_words(name: str) -> list[tuple[str, bool]]:
    """The words of a name as they are, each with whether it is printed in italics.

    Genus and epithets are; ranks, the hybrid sign and authors are upright.
    """
    words, printed, epithets = name.split(), [], True
    for position, word in enumerate(words):
        following = words[position + 1] if position + 1 < len(words) else ""
        apart = word in _RANKS or word in _HYBRID or word in _IN_DOUBT
        if apart:
            # f. is a rank before an epithet and "the son" after an author
            epithets = following[:1].islower() and following not in _OF_AUTHORS
        elif position:
            epithets = epithets and word[0].islower()
        printed.append((word, epithets and not apart and word.replace("-", "").isalpha()))
    return printed
