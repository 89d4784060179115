import pytest

from utils.data.names import epithet_of, genus_of, split_authors, tidy

# One line a name: as written, bare, authors, genus, epithet.
NAMES = [
    ("Jasminum fluminense Vell.", "Jasminum fluminense", "Vell.", "Jasminum", "fluminense"),
    ("Jasminum fluminense", "Jasminum fluminense", "", "Jasminum", "fluminense"),
    ("Polyscias", "Polyscias", "", "Polyscias", ""),
    ("Polyscias J.R.Forst. & G.Forst.", "Polyscias", "J.R.Forst. & G.Forst.", "Polyscias", ""),
    ("Olea europaea (L.) Mill.", "Olea europaea", "(L.) Mill.", "Olea", "europaea"),
    ("Mentha x piperita L.", "Mentha ×piperita", "L.", "Mentha", "×piperita"),
    ("Mentha ×piperita", "Mentha ×piperita", "", "Mentha", "×piperita"),
    ("× Triticosecale rimpaui Wittm.", "×Triticosecale rimpaui", "Wittm.", "×Triticosecale", "rimpaui"),
    ("Quercus alba L. × Quercus robur L.", "Quercus alba ×Quercus robur", "L. L.", "Quercus", "alba"),
    ("Daucus carota L. subsp. carota", "Daucus carota subsp. carota", "L.", "Daucus", "carota"),
    ("Daucus carota ssp. carota", "Daucus carota subsp. carota", "", "Daucus", "carota"),
    ("Salix alba L. f. argentea Wimm.", "Salix alba f. argentea", "L. Wimm.", "Salix", "alba"),
    ("Myosotis scorpioides L. f.", "Myosotis scorpioides", "L. f.", "Myosotis", "scorpioides"),
    ("Carex flava L. f. ex Hook.", "Carex flava", "L. f. ex Hook.", "Carex", "flava"),
    ("Carex flava L. f. var. nevadensis", "Carex flava var. nevadensis", "L. f.", "Carex", "flava"),
    ("Zea mays L. subsp. Mexicana", "Zea mays subsp. Mexicana", "L.", "Zea", "mays"),
    ("Zea mays mays", "Zea mays mays", "", "Zea", "mays"),
    ("Carex cf. flava L.", "Carex cf. flava", "L.", "Carex", ""),
    ("Haenianthus salicifolius, Griseb", "Haenianthus salicifolius", "Griseb", "Haenianthus", "salicifolius"),
    ("Aster novae-angliae L.", "Aster novae-angliae", "L.", "Aster", "novae-angliae"),
    ("Rosa de Vries", "Rosa", "de Vries", "Rosa", ""),
    ("Rosa canina auct.", "Rosa canina", "auct.", "Rosa", "canina"),
    ("", "", "", "", ""),
]  # fmt: skip


@pytest.mark.parametrize(("written", "bare", "authors", "genus", "epithet"), NAMES)
def test_names_are_taken_apart(written, bare, authors, genus, epithet):
    assert split_authors(written) == (bare, authors)
    assert genus_of(written) == genus
    assert epithet_of(written) == epithet


def test_a_known_epithet_may_have_a_capital():
    assert split_authors("Zea Mays L.") == ("Zea", "Mays L.")
    assert split_authors("Zea Mays L.", "Mays") == ("Zea Mays", "L.")


def test_bare_names_stay_as_they_are():
    for _, bare, *_ in NAMES:
        assert split_authors(bare) == (bare, "")


def test_spaces_and_composed_letters_are_made_one():
    assert tidy("  Zea\t mays\u00a0 L. ") == "Zea mays L."
    assert tidy("Scho\u0308nia") == "Schönia"
