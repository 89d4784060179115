"""Scientific names in print: genus and epithets in italics; ranks, signs and authors upright."""

_RANKS = {"var.", "subsp.", "ssp.", "f.", "nothosubsp.", "nothovar.", "×", "x"}
_PARTICLES = {"ex", "in", "et", "de", "von", "van"}  # within authors


def name_words(name: str) -> list[tuple[str, bool]]:
    """The words of a scientific name, each with whether it is set in italics."""
    words, printed, epithets = name.split(), [], True
    for position, word in enumerate(words):
        following = words[position + 1] if position + 1 < len(words) else ""
        if word in _RANKS:
            # f. is a rank before an epithet and "the son" after an author
            epithets = following[:1].islower() and following not in _PARTICLES
        elif position:
            epithets = epithets and word[0].islower()
        printed.append((word, epithets and word not in _RANKS and word.replace("-", "").isalpha()))
    return printed
