"""Scientific names with and without their authors: "Jasminum fluminense Vell." and "Jasminum fluminense"."""

import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

import numpy as np


def word_set(text: str) -> frozenset[str]:
    """The words of a text, as a set."""
    return frozenset(text.split())


_RANKS = {
    **dict.fromkeys(("subsp.", "subsp", "ssp.", "ssp"), "subsp."),
    **dict.fromkeys(("var.", "var"), "var."),
    **dict.fromkeys(("f.", "fo.", "forma"), "f."),
    **{written: written for written in ("subvar.", "subf.", "nothosubsp.", "nothovar.")},
}
_HYBRID = ("×", "x", "X")
_IN_DOUBT = ("cf.", "aff.")
# Words in lower case that belong to the authors.
_OF_AUTHORS = word_set("ex et in de du da la le van von der fil. non nec auct. auctt. hort. sensu emend.")

# Characters that are drawn alike: hyphens, dashes and the minus sign; apostrophes; signs of a hybrid. Nobody writes
# an underscore in a name but in place of a space.
_SPELT_ALIKE = str.maketrans(
    {**dict.fromkeys("‐‑‒–—−﹣－", "-"), **dict.fromkeys("‘’ʼ′´`", "'"), **dict.fromkeys("⨯✕", "×"), "_": " "}
)
_LIGATURES = str.maketrans({"æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d"})

# Words of authors in lower case that leave a name what it is; others (auct., sensu, nom., agg.) do not.
_BETWEEN_AUTHORS = word_set(
    "ex et and und y in apud & al. f. fil. fil bis emend. de du da das do dos del della di la le van von "
    "vom zu zur den der ter ten te af"
)
_AUTHOR = re.compile(r"\(*(?:[dl]')?([^\W\d_])[^\W\d_]*(?:[.,;:()&'-]+[^\W\d_]*)*")
_YEAR = re.compile(r"\(?(?:1[6-9]|20)\d\d\)?[,.;]?")
# Written with a capital and no author: what makes a name one of a part of the species, or of several.
_OF_CULTIVATION = word_set(
    "Group Gp Grex Complex Form Type Morph Race Strain Clade Clone Cultivar Variety Hybrid Ecotype "
    "Population Lineage"
)
_WORD = re.compile(r"[^\W\d_]+(?:[-'][^\W\d_]+)*")
# Abbreviations that stand where an epithet would, also without their full stop.
_NO_EPITHETS = word_set(
    "sp spp spec species hybrid indet undet cf aff agg aggr auct non nec cv convar sect subsect subg subgen ser "
    "hort nom nov ined s l"
)

# A label of these words alone names no taxon; those of the second list only beside one of the first.
_NO_NAME = word_set(
    "na nan nat null none nil n/a unknown unidentified undetermined undet unnamed unspecified indet "
    "indeterminate indeterminata ignota incertae sedis sp spp spec gen missing scientificname identified "
    "determined available scientific tbd nd id blank empty unk unbekannt unbestimmt desconocido "
    "desconocida inconnu inconnue"
)
_BESIDE_NO_NAME = word_set("species genus family plant specimen taxon name not no yet et")


def tidy(name: str) -> str:
    """The name with single spaces, in composed characters (NFC), without what is not seen.

    Invisible characters (zero-width spaces, soft hyphens, byte order marks) go; an underscore is a space; all
    hyphens become "-", all apostrophes "'".
    """
    if not (name.isascii() and name.isprintable()):
        name = "".join(c for c in name if c.isspace() or unicodedata.category(c) not in ("Cf", "Cc"))
    return " ".join(unicodedata.normalize("NFC", name.translate(_SPELT_ALIKE)).split())


def is_no_name(label: str) -> bool:
    """Whether a label names no taxon: "NA", "#N/A", "unknown species", "sp. indet.", "-", "12", or the column's name.

    A name that only begins so (Nama, Nassella) is one.
    """
    text = tidy(label)
    words = set(re.findall(r"n/a|[^\W\d_]+", text.casefold()))
    return (
        not words
        or (words <= _NO_NAME | _BESIDE_NO_NAME and not words <= _BESIDE_NO_NAME)
        or text == r"\N"  # databases
        or bool(re.fullmatch(r"#\S+", text))  # spreadsheets: #REF!, #NAME?, in German #NV, in Spanish #N/D
        or bool(re.fullmatch(r"[ns]\. ?[adn]\.?", text.casefold()))  # n.a., n.d., s.n.
    )


def comparable(name: str, species: str = "") -> tuple[str, str]:
    """The taxon and its authors ("" where there are none), each in one spelling: equal pairs are one name.

    Only of a binomial, with or without further ranks, are the authors set apart. Anything else, such as a genus,
    "Carex sp. 1", "Carex ?nigra", a cultivar, an aggregate or "auct. non L.", is its own taxon as written, so that
    it is never taken for a species. In a binomial hyphens do not count; among authors spaces and full stops do
    not, nor does a year, and "et" is "&".
    """
    bare, authors = split_authors(name, species)
    if not _is_binomial(bare.split(), authors.split()):
        return tidy(name), ""
    return bare.replace("-", ""), authors_key(authors)


def match(names: Sequence[str] | np.ndarray, known: Sequence[str] | np.ndarray) -> np.ndarray:
    """Positions of scientific names among the known ones, int64 of the shape of `names`; -1 where it is not known.

    The name as written counts first. If it is not there, spelling does not count, and a binomial without authors
    matches one with authors where that leaves one name: "Zea mays L." is the known "Zea mays", and the other way
    round; "Zea mays Mill." is not the known "Zea mays L.". See `comparable`.
    """
    whole = {tidy(name): position for position, name in enumerate(np.asarray(known, dtype=object).tolist())}
    by_taxon: dict[str, list[tuple[str, int]]] = {}
    for name, position in whole.items():
        taxon, authors = comparable(name)
        by_taxon.setdefault(taxon, []).append((authors, position))

    def position_of(name: str) -> int:
        if tidy(name) in whole:
            return whole[tidy(name)]
        taxon, authors = comparable(name)
        found = by_taxon.get(taxon, [])
        same = [position for of, position in found if of == authors]
        if not same and len(found) == 1 and "" in (authors, found[0][0]):
            same = [found[0][1]]
        return same[0] if len(same) == 1 else -1

    wanted = np.asarray(names, dtype=object)
    of = {name: position_of(name) for name in set(wanted.ravel().tolist())}
    return np.array([of[name] for name in wanted.ravel()], dtype=np.int64).reshape(wanted.shape)


def authors_key(authors: str) -> str:
    """Authors in one spelling: "Müll. Arg." as "Müll.Arg.", "Boott et Torr." as "Boott & Torr."."""
    words = [word for word in tidy(authors).split() if not _YEAR.fullmatch(word)]
    text = " ".join("&" if word in ("et", "and", "und") else word for word in words)
    return re.sub(r"[\s.]", "", re.sub(r"\bfil\b", "f", text)).strip(",;:/")


def look_alikes(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Names that differ in nothing but case, accents, signs or authors: they may be one, which a person must say."""
    groups: dict[str, set[str]] = {}
    for name in names:
        for text in {tidy(name), comparable(name)[0]}:
            groups.setdefault(_letters(text), set()).add(name)
    return sorted({tuple(sorted(group)) for group in groups.values() if len(group) > 1})


def look_alike_notes(names: Iterable[str], most: int = 20) -> list[str]:
    """A sentence for each group of `look_alikes`, and the number of those that are not told."""
    groups = look_alikes(names)
    notes = [
        f"{', '.join(map(repr, group[:5]))} look alike and are {len(group)} species here. Write them alike if they are "
        "one."
        for group in groups[:most]
    ]
    return notes + ([f"{len(groups) - most} more groups of names look alike."] if len(groups) > most else [])


def _letters(text: str) -> str:
    """Letters and digits in lower case, without accents."""
    plain = unicodedata.normalize("NFKD", text.casefold().translate(_LIGATURES))
    return "".join(filter(str.isalnum, plain))


def _is_binomial(bare: list[str], authors: list[str]) -> bool:
    """Whether the words are a genus and an epithet, with ranks or not, and nothing behind them but authors."""
    ranks = {*_RANKS.values()}
    words = [word.removeprefix("×") for word in bare if word not in ranks]
    return (
        len(bare) > 1
        and bare[1] not in ranks
        and all(_WORD.fullmatch(word) and word not in _NO_EPITHETS for word in words)
        and all(_is_of_authors(word, following) for word, following in itertools.pairwise([*authors, ""]))
    )


def _is_of_authors(word: str, following: str) -> bool:
    name = _AUTHOR.fullmatch(word)
    own_letter = len(word) == 1 and word != "L" and not following  # as in "Poa annua A"; L is Linnaeus
    return (
        bool(name and name[1].isupper() and word not in _OF_CULTIVATION and not own_letter)
        or word.strip("(),;:") in _BETWEEN_AUTHORS
        or bool(_YEAR.fullmatch(word))
        or (word == "hort." and following == "ex")
    )


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


def doubt_of(name: str, species: str = "") -> str:
    """What keeps a name from being that of a species, as Darwin Core's identificationQualifier; "" for a species.

    "cf. nigra" of "Carex cf. nigra", "aff.", "?", and "sp." where there is no epithet: "Carex", "Carex sp. 1".

    Args:
        name: with or without authors.
        species: the epithet where a table names it.
    """
    words = tidy(name).split()
    for place, word in enumerate(words):
        sign = _sign_of(word)
        if (
            sign and not {*words[max(place - 1, 0) : place + 2]} & _RANKS.keys()
        ):  # of a variety: the species stands
            return " ".join([sign, *words[place + 1 : place + 2]])
        if "?" in word:
            return "?"
    # ZEA MAYS and Croton Haenseleri have epithets, as old labels write them
    second = [
        word.lstrip("×").rstrip(",;/")
        for word in [*species.split()[:1], *itertools.islice(_joined(name), 1, 2)]
    ]
    named = [word for word in second if _WORD.fullmatch(word) and len(word) > 2]
    return "" if any(word.casefold() not in _NO_EPITHETS for word in named) else "sp."


def in_doubt(name: str, qualifier: str) -> str:
    """The name with what Darwin Core's identificationQualifier doubts in it: "Carex cf. nigra" by "cf. nigra".

    A doubt about a variety or subspecies leaves the species what it is, and so does a qualifier of another kind.
    """
    if not qualifier:
        return name
    words, doubt = tidy(name).split(), tidy(qualifier).split()
    sign = "cf." if doubt[:1] == ["?"] else _sign_of(doubt[0]) if doubt else None
    if not words or not sign or doubt_of(name) or (doubt[1:2] and doubt[1] in _RANKS):
        return name
    return " ".join([words[0], sign, *words[1:]])


_DOUBTS = dict.fromkeys(("cf", "cfr", "conf", "confer"), "cf.") | dict.fromkeys(
    ("aff", "prope", "near"), "aff."
)


def _sign_of(word: str) -> str | None:
    """The sign of doubt that a word is, also in brackets or before a comma: "(cf.)"."""
    return _DOUBTS.get(word.casefold().strip("()[].,;:"))


def look_for_doubts(
    names: Iterable[str], images: Iterable[int], species: Iterable[str | None] | None = None, most: int = 10
) -> str:
    """A sentence on names that are no species and how many images they have; "" where there is none.

    Args:
        names, images: one entry a name.
        species: the epithets where a table names them.
        most: names to list.
    """
    known = itertools.repeat("") if species is None else species
    rows = zip(names, images, known, strict=False)
    found = {name: count for name, count, epithet in rows if doubt_of(name, epithet or "")}
    if not found:
        return ""
    shown = ", ".join(map(repr, itertools.islice(found, most))) + (", ..." if len(found) > most else "")
    total = f"{sum(found.values()):,} images of {len(found):,} names"
    return f"{total} that are no species (cf., aff., no epithet): {shown}"


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
    return word.islower() and "." not in word and not {word} & (_OF_AUTHORS | _RANKS.keys() | _NO_EPITHETS)


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
