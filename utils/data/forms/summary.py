"""The figures of a metadata file in any form, for the command line."""

from pathlib import Path

from utils.data.forms.names import look_alike_notes, look_for_doubts
from utils.data.metadata import TEST_JSON, UNKNOWN, form_of, read_metadata, read_test_metadata
from utils.data.tail import summarize


def summarize_file(path: Path) -> dict[str, str | int | float | list[str]]:
    """The form and the figures of a metadata file in any form, ready for JSON.

    For test_metadata.json, which names no species, these are the form and the numbers of images and licences.
    For the other forms they are those of `summarize` and, beside them, single_image_species,
    images_without_family, genus_distances, and notes: sentences on names that are no species, or look alike.

    Raises:
        InputError: see `utils.data.metadata.read_metadata`.
    """
    form = form_of(path)
    if form == TEST_JSON:
        images = read_test_metadata(path)
        return {"form": form, "images": len(images), "licenses": int(images["license"].nunique())}
    metadata = read_metadata(path)
    categories, used = metadata.categories, metadata.annotations["category_id"]
    counts = used.value_counts().reindex(categories["category_id"], fill_value=0)
    doubts = look_for_doubts(categories["scientificName"], counts, species=categories["species"])
    without_family = categories["category_id"][categories["family"] == UNKNOWN]
    return {
        "form": form,
        **summarize(metadata),
        "single_image_species": int((used.value_counts() == 1).sum()),
        "images_without_family": int(used.isin(without_family).sum()),
        "genus_distances": len(metadata.distances),
        "notes": ([f"{doubts}. tfrecords write leaves them out."] if doubts else [])
        + look_alike_notes(categories["scientificName"]),
    }
