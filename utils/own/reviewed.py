"""What comes out of a review: labels to learn from and a table of all other sheets, in Darwin Core's terms."""

from datetime import datetime
from pathlib import Path

from utils.data.forms.names import split_authors
from utils.own.answers import write_rows
from utils.own.decisions import ACCEPT, ASIDE, CORRECT, DOUBT, Decision, Decisions
from utils.own.review import AFF, CF, Sheet

TERMS = (
    "catalogNumber",
    "file_name",
    "scientificName",
    "genus",
    "family",
    "identifiedBy",
    "dateIdentified",
    "identificationQualifier",
    "identificationRemarks",
    "verbatimIdentification",
    "identificationVerificationStatus",
)
_VERIFIED = {ACCEPT: "accepted", CORRECT: "corrected", DOUBT: "doubtful", ASIDE: "put aside"}


def results(decisions: Path) -> tuple[Path, Path]:
    """Where the two tables of a review lie, beside its decisions: labels to learn from, and all other sheets."""
    stem = decisions.name.removesuffix(".jsonl").removesuffix(".decisions")
    return decisions.with_name(f"{stem}.reviewed.csv"), decisions.with_name(f"{stem}.open.csv")


def write_review(decisions: Decisions, sheets: list[Sheet]) -> tuple[int, int]:
    """Write the tables of `results` with Darwin Core's terms, whole, and count their rows.

    Accepted and corrected sheets are labels that `metadata` reads. Doubtful ones, those put aside and undecided ones
    would be wrong labels, so they have a table of their own. A decision about a sheet that the predictions do not
    list counts too.
    """
    decisions.refresh(anew=True)
    labels, unsettled = results(decisions.path)
    rows = {True: [TERMS], False: [TERMS]}
    known = {sheet.file: sheet for sheet in sheets}
    for file in [*known, *(file for file in decisions.counting if file not in known)]:
        decision = decisions.of(file)
        settled = decision is not None and decision.do in (ACCEPT, CORRECT)
        rows[settled].append(_row(file, known.get(file), decision))
    write_rows(rows[True], labels)
    write_rows(rows[False], unsettled)
    return len(rows[True]) - 1, len(rows[False]) - 1


def _row(file: str, sheet: Sheet | None, decision: Decision | None) -> list[str]:
    if decision is None:
        return [sheet.image_id, file, "", "", "", "", "", "", "", sheet.guesses[0].species, "not reviewed"]
    qualifier = decision.qualifier
    if qualifier in (CF, AFF):
        qualifier = " ".join([qualifier, *split_authors(decision.name)[0].split(" ")[1:]])
    verified = _VERIFIED[decision.do] + (", new name" if decision.new else "")
    date = datetime.fromisoformat(decision.at).date().isoformat()
    of = (decision.name, decision.genus, decision.family, decision.by, date)
    image_id = decision.image_id or (sheet.image_id if sheet else "")  # a line by hand may lack it
    return [image_id, file, *of, qualifier, decision.remarks, decision.was, verified]
