import pytest

from utils.data.forms.names import (
    comparable,
    doubt_of,
    epithet_of,
    genus_of,
    in_doubt,
    is_no_name,
    look_alike_notes,
    look_alikes,
    split_authors,
    tidy,
)

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


def one_name(name, other):
    """Whether two names are one, as the reader of tables and the label map judge."""
    (taxon, authors), (other_taxon, other_authors) = comparable(name), comparable(other)
    return taxon == other_taxon and (authors == other_authors or not authors or not other_authors)


# One name in two spellings a line: invisible characters, spaces, hyphens, authors, ranks, signs.
ONE_NAME = """
Zea\u200b mays L. | Zea mays L.
Zea mays\ufeff | Zea mays
Zea\u2009mays\u200e L. | Zea mays L.
Zea_mays_L. | Zea mays L.
Capsella bursa\u00adpastoris | Capsella bursa-pastoris
Pinus penn\u00adsylvanica | Pinus pennsylvanica
Aster novae\u2010angliae L. | Aster novae-angliae L.
Aster novae\u2011angliae L. | Aster novae-angliae L.
Aster novae\u2013angliae L. | Aster novae-angliae L.
Aster novae\u2212angliae L. | Aster novae-angliae L.
Rosa alba O\u2019Donnell | Rosa alba O'Donnell
Croton albus Müll.Arg. | Croton albus Müll. Arg.
Olea alba (L.)Mill. | Olea alba (L.) Mill.
Carex alba Boott & Torr. | Carex alba Boott et Torr.
Carex alba Boott&Torr. | Carex alba Boott and Torr.
Salix alba L.f. | Salix alba L. fil.
Salix alba L | Salix alba L.
Salix alba L., 1753 | Salix alba L.
Salix alba L.; | Salix alba L.
Salix alba d'Urv. | Salix alba
Salix alba de Vries | Salix alba
Salix alba hort. ex Lavallée | Salix alba
Salix alba Čelak. & Á.Löve | Salix alba
Salix alba A.St.-Hil., A.Juss. & Cambess. | Salix alba
Hydrangea alba Ser. | Hydrangea alba
Salix alba (Link) Schult. & Schult.f. | Salix alba
Carex alba (L.) Mill. subsp. alba | Carex alba ssp. alba
Mentha x piperita L. | Mentha × piperita
Quercus alba L. x Quercus robur L. | Quercus alba × Quercus robur
"""
# Two names a line: another taxon, a doubt, or what only a person can say.
TWO_NAMES = """
Carex nigra | Carex nigra agg.
Carex nigra | Carex nigra agg
Carex nigra | Carex nigra s.l.
Carex nigra | Carex nigra s. l.
Carex nigra | Carex nigra sens. lat.
Carex nigra | Carex nigra auct. non L.
Carex nigra | Carex nigra auct.
Carex nigra | Carex nigra sensu Hook.
Carex nigra | Carex nigra hort.
Carex nigra | Carex nigra L. non Mill.
Carex nigra | Carex nigra All. nom. illeg.
Carex nigra | Carex nigra cv. Red
Carex nigra | Carex nigra cv Red
Carex nigra | Carex nigra 'Variegata'
Carex nigra | Carex nigra \u2018Variegata\u2019
Carex nigra | Carex nigra Group
Carex nigra | Carex nigra Pink Form
Carex nigra | Carex nigra Type A
Carex nigra | Carex nigra B
Carex nigra | Carex nigra ?
Carex nigra | Carex nigra [auct.]
Carex nigra | Carex nigra juv.
Carex nigra | Carex nigra 2
Carex nigra | Carex nigra var.
Carex nigra | Carex nigra x
Carex nigra | Carex nigra x alba
Carex nigra | Carex nigra × alba
Carex nigra | Carex nigra subsp. nigra
Carex nigra | Carex nigra convar. alba
Carex nigra | Carex nigra or flava
Carex nigra | Carex nigra nigra
Carex nigra | Carex nigra?
Carex nigra | Carex ?nigra
Carex nigra | Carex cf. nigra
Carex nigra | Carex cf nigra
Carex nigra | Carex aff. nigra
Carex nigra | Carex nigra/flava
Carex | Carex sp.
Carex | Carex sp
Carex | Carex spp.
Carex | Carex spec.
Carex | Carex sp. 1
Carex | Carex sp. nov.
Carex | Carex indet.
Carex | Carex cf. nigra
Carex | Carex ?nigra
Carex | Carex sect. Ovales
Carex | Carex subg. Vignea
Carex | Carex Haenseleri
Carex | Carex 'Red'
Carex | Carex L.
Carex sp. | Carex sp. 1
Carex sp | Carex sp L.
Fimbristylis sp. | Fimbristylis sp. Shay Gap (K.R. Newbey 10293)
Taraxacum sect. | Taraxacum sect. Ruderalia
Zea mays L. | ZEA MAYS L.
Zea mays | zea mays
Zea mays | ZEA MAYS
Isoëtes alba | Isoetes alba
Pinus alba L. | Pinus alba Linnaeus
Poa alba Gand. | Poa alba Gandog.
Poa alba Hook. ex Arn. | Poa alba Hook. & Arn.
C. nigra | C. nigra L.
Mentha ×piperita | Mentha piperita
×Triticosecale | Triticosecale
"""


def pairs(text):
    return [tuple(line.split(" | ")) for line in text.strip().splitlines()]


@pytest.mark.parametrize(("name", "other"), pairs(ONE_NAME))
def test_spelling_makes_no_second_name(name, other):
    assert one_name(name, other) and one_name(other, name)


@pytest.mark.parametrize(("name", "other"), pairs(TWO_NAMES))
def test_what_may_be_another_taxon_is_one(name, other):
    assert not one_name(name, other)


def test_plausible_names_with_authors_are_all_taken_apart():
    """Every epithet, rank and sign of a hybrid with every form of authors: none falls together, none is doubted."""
    authors = [
        "L.",
        "(L.) Mill.",
        "A.Gray",
        "Torr. & A.Gray",
        "Müll.Arg.",
        "DC. ex Hook.f.",
        "(Michx.) B.S.P.",
        "de la Llave",
    ]
    epithets = [
        "alba",
        "albida",
        "novae-angliae",
        "o'donellii",
        "×alba",
        "alba subsp. alba",
        "alba var. nigra",
    ]
    epithets += [
        "alba f. nigra",
        "alba subsp. alba var. alba",
        "alba nothosubsp. nigra",
        "alba ×Carex nigra",
        "alba nigra",
    ]
    names = [f"Carex {epithet} {of}" for epithet in epithets for of in authors]
    taken = {comparable(name) for name in names}
    assert len(taken) == len(names) and len({taxon for taxon, _ in taken}) == len(epithets)
    assert all(of for _, of in taken)


NO_NAMES = (
    r"""NA nan NaN NULL null None #N/A N/A <NA> \N #REF! - ? 12 Unknown indet. undet. sp. scientificName"""
)


@pytest.mark.parametrize(
    "label",
    [
        *NO_NAMES.split(),
        "",
        "scientific name",
        "gen. sp. indet.",
        "Unknown species",
        "unknown sp. 3",
        "not identified",
        *["n.a.", "n. d.", "s.n.", "#NV", "#N/D", "(blank)", "TBD", "No ID"],
        "Incertae sedis",
    ],
)
def test_a_label_that_names_no_taxon_is_no_name(label):
    assert is_no_name(label)


@pytest.mark.parametrize(
    "name",
    [
        *["Nama", "Nassella", "Nana", "Nonea", "Nolina", "Genista", "A"],
        "Nandina alba",
        "Species 1",
        "Carex sp.",
        "Carex indet.",
    ],
)
def test_a_name_that_begins_like_no_name_is_one(name):
    assert not is_no_name(name)


def test_look_alikes_are_told_and_others_are_not():
    names = [
        "Zea mays L.",
        "ZEA MAYS L.",
        "Isoëtes alba",
        "Isoetes alba L.",
        "Poa alba Gand.",
        "Poa alba Gandog.",
    ]
    names += ["Poa", "Carex nigra", "Carex nigra subsp. nigra", "Carex flava"]
    assert look_alikes(names) == [
        ("Isoetes alba L.", "Isoëtes alba"),
        ("Poa alba Gand.", "Poa alba Gandog."),
        ("ZEA MAYS L.", "Zea mays L."),
    ]
    notes = look_alike_notes(names, most=2)
    assert len(notes) == 3 and notes[0].startswith(
        "'Isoetes alba L.', 'Isoëtes alba' look alike and are 2 species"
    )
    assert notes[-1] == "1 more groups of names look alike."


@pytest.mark.parametrize(
    ("name", "doubt"),
    [
        ("Carex nigra", ""),
        ("Carex nigra (L.) Reichard", ""),
        ("CAREX NIGRA", ""),
        ("Croton Haenseleri", ""),
        ("Carex × nigra", ""),
        ("×Triticosecale rimpaui", ""),
        ("Carex nigra agg.", ""),
        ("Carex nigra var. cf. alba", ""),
        ("Carex nigra cf. var. alba", ""),
        ("Carex cf. nigra", "cf. nigra"),
        ("Carex CF nigra L.", "cf. nigra"),
        ("Carex aff nigra", "aff. nigra"),
        ("cf. Carex nigra", "cf. Carex"),
        ("Carex nigra (cf.)", "cf."),
        ("Carex nigra [aff.], Ohio", "aff. Ohio"),
        ("Carex confer nigra", "cf. nigra"),
        ("Carex near nigra", "aff. nigra"),
        ("Carex cfr. nigra", "cf. nigra"),
        ("Carex nr. nigra", "sp."),
        ("Carex nigra Nr. 12", ""),
        ("Carex hybrid", "sp."),
        ("Carex hybrida", ""),
        ("Carex ?nigra", "?"),
        ("Carex nigra ?", "?"),
        ("Carex", "sp."),
        ("Carex L.", "sp."),
        ("Carex sp.", "sp."),
        ("Carex spp", "sp."),
        ("Carex sp. 1", "sp."),
        ("Carex_indet.", "sp."),
        ("Carex sect. Ovales", "sp."),
    ],
)
def test_names_that_are_no_species_say_why(name, doubt):
    assert doubt_of(name) == doubt


def test_an_epithet_in_its_own_column_counts_where_it_is_one():
    assert doubt_of("Carex L.", "nigra") == "" and doubt_of("Carex", "sp. 1") == "sp."


@pytest.mark.parametrize(
    ("name", "qualifier", "expected"),
    [
        ("Carex nigra L.", "cf. nigra", "Carex cf. nigra L."),
        ("Carex nigra", "aff.", "Carex aff. nigra"),
        ("Carex nigra", "(cf.)", "Carex cf. nigra"),
        ("Carex nigra", "?", "Carex cf. nigra"),
        ("Carex nigra", "", "Carex nigra"),
        ("Carex nigra", "s.l.", "Carex nigra"),
        ("Quercus agrifolia", "cf. var. oxyadenia", "Quercus agrifolia"),
        ("Carex cf. nigra", "cf. nigra", "Carex cf. nigra"),
        ("Carex", "cf. nigra", "Carex"),
    ],
)
def test_a_qualifier_in_its_own_column_goes_into_the_name(name, qualifier, expected):
    assert in_doubt(name, qualifier) == expected
