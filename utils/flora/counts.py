"""Counts of the real data set, which the generated full-size metadata follow exactly.

Counted from the category table of Herbarium 2022 (NAFlora-1M): 15,501 species in 2,564 genera with 839,772
training images. The ten largest families are in utils.data.metadata.PUBLISHED_FAMILIES.
"""

# fmt: off
# training images: species that have so many
SPECIES_BY_TRAIN_IMAGES = {
    5: 2, 6: 12, 7: 70, 8: 181, 9: 219, 10: 229, 11: 150, 12: 160, 13: 187, 14: 193,
    15: 140, 16: 139, 17: 171, 18: 189, 19: 125, 20: 123, 21: 128, 22: 154, 23: 128, 24: 139,
    25: 133, 26: 138, 27: 106, 28: 122, 29: 120, 30: 135, 31: 89, 32: 110, 33: 98, 34: 87,
    35: 105, 36: 105, 37: 106, 38: 89, 39: 89, 40: 107, 41: 98, 42: 110, 43: 103, 44: 96,
    45: 119, 46: 123, 47: 117, 48: 106, 49: 105, 50: 119, 51: 95, 52: 124, 53: 108, 54: 109,
    55: 101, 56: 117, 57: 102, 58: 103, 59: 106, 60: 144, 61: 152, 62: 171, 63: 144, 64: 202,
    65: 220, 66: 235, 67: 303, 68: 335, 69: 430, 70: 564, 71: 620, 72: 685, 73: 812, 74: 827,
    75: 725, 76: 717, 77: 588, 78: 514, 79: 300, 80: 174,
}

# species: genera that have so many
GENERA_BY_SPECIES = {
    1: 1126, 2: 399, 3: 221, 4: 147, 5: 91, 6: 63, 7: 61, 8: 62, 9: 48, 10: 27,
    11: 20, 12: 26, 13: 17, 14: 17, 15: 16, 16: 9, 17: 20, 18: 15, 19: 10, 20: 11,
    21: 8, 22: 7, 23: 7, 24: 8, 25: 11, 26: 6, 27: 6, 28: 6, 29: 6, 30: 4,
    31: 4, 32: 2, 33: 3, 34: 5, 35: 7, 36: 1, 37: 2, 38: 3, 39: 7, 40: 1,
    41: 5, 42: 2, 43: 1, 45: 1, 46: 2, 49: 1, 51: 2, 52: 1, 53: 2, 54: 2,
    55: 1, 56: 4, 61: 3, 62: 1, 67: 1, 70: 1, 71: 2, 72: 1, 73: 1, 74: 1,
    77: 2, 78: 2, 80: 1, 82: 1, 87: 1, 90: 1, 91: 1, 95: 1, 102: 1, 105: 1,
    118: 1, 134: 1, 135: 1, 195: 1, 223: 1, 313: 1, 436: 1,
}
# fmt: on

# the largest genera: species and family
LARGEST_GENERA = {
    "Carex": (436, "Cyperaceae"),
    "Astragalus": (313, "Fabaceae"),
    "Penstemon": (223, "Plantaginaceae"),
    "Eriogonum": (195, "Polygonaceae"),
    "Phacelia": (135, "Boraginaceae"),
    "Erigeron": (134, "Asteraceae"),
    "Euphorbia": (118, "Euphorbiaceae"),
    "Cyperus": (105, "Cyperaceae"),
}
