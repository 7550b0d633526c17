import json

from ..lab import LabError
from ..load import ROOT
from ..table import table

TITLE = "Coverage of the tests"
SUMMARY = ROOT / ".bench" / "coverage.json"


def run(lab):
    if not SUMMARY.is_file():
        if lab.options.write:
            raise LabError(f"{SUMMARY.relative_to(ROOT)} is not there: make coverage")
        return "Not measured: `make coverage`."
    totals = json.loads(SUMMARY.read_text())["data"][0]["totals"]
    rows = [
        [what, f"{totals[what]['covered']:,}", f"{totals[what]['count']:,}", f"{totals[what]['percent']:.1f} %"]
        for what in ("lines", "functions", "regions")
    ]
    commit = SUMMARY.with_suffix(".commit").read_text().strip()
    return (
        f"What `make coverage` counted of commit {commit}: `make test` without the charts, the documentation's examples and the extensions' own tests.\n"
        "A process that is killed leaves no counts, so what only such ones ran is not in here.\n\n"
        + table(["of", "covered", "all", "share"], rows)
    )
