"""docs/performance.md holds what benchmarks/results.json says, and nothing else."""

from pathlib import Path

import msgspec

from benchmarks.document import fill, places
from benchmarks.measure import Report
from benchmarks.parts import PARTS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "performance.md").read_text("utf-8")
NAMES = [part.name for part in PARTS]


def test_the_page_is_what_the_figures_render_to() -> None:
    file = ROOT / "benchmarks" / "results.json"
    report = msgspec.json.decode(file.read_bytes(), type=Report, strict=True)
    assert fill(PAGE, report, NAMES) == PAGE, "make bench ARGS='--no-measure --json … --render …'"


def test_the_page_has_a_place_for_every_part() -> None:
    assert places(PAGE) == ["machine", "goals", *NAMES]
