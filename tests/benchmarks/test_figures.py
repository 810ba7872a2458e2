"""From the figures of the rounds to medians, ratios, verdicts and pages."""

import pytest

from benchmarks.document import UnknownFigures, fill, goal_cells, lines_of, number, places
from benchmarks.measure import (
    Column,
    Contestant,
    Goal,
    Measured,
    Part,
    Report,
    Row,
    Table,
    in_turn,
    percentile,
    quotients,
)

SPACE = "\N{NO-BREAK SPACE}"
TABLE = Table(
    title="Speed",
    columns=[Column(name="per s", spread=True), Column(name="ms", decimals=1)],
    rows=[
        Row("slow", {"per s": [100.0, 50.0, 200.0], "ms": [4.0]}),
        Row("fast", {"per s": [1_000.0, 600.0, 1_600.0]}),
    ],
    ratio="per s",
    bases=["slow"],
)


def goal(bound: float = 10, *, at_most: bool = False, number: str = "4a") -> Goal:
    return Goal(
        number=number,
        what="fast against slow",
        kind="at most" if at_most else "at least",
        bound=bound,
        unit="x",
        values=TABLE.ratios("fast", "slow"),
    )


def part(name: str = "one", goals: tuple[Goal, ...] = ()) -> Part:
    measured = Measured(how="Done so.", tables=[TABLE], goals=list(goals), checks=["all is right"])
    return Part(
        name=name,
        title=name,
        at="2026-01-02T03:04:05+00:00",
        seconds=1.0,
        size="usual",
        rounds=3,
        measured=measured,
    )


def test_contestants_take_turns_round_by_round() -> None:
    told: list[str] = []
    ran: list[str] = []

    def contestant(name: str, value: float) -> Contestant:
        def run() -> dict[str, float]:
            ran.append(name)
            return {"per s": value}

        return Contestant(name, run)

    rows = in_turn([contestant("a", 1.0), contestant("b", 2.0)], 2, told.append)
    assert ran == ["a", "b", "a", "b"]
    assert told == ["a (1/2)", "b (1/2)", "a (2/2)", "b (2/2)"]
    assert rows == [Row("a", {"per s": [1.0, 1.0]}), Row("b", {"per s": [2.0, 2.0]})]


def test_a_ratio_is_the_median_of_the_ratios_of_the_rounds() -> None:
    assert TABLE.ratios("fast", "slow") == [10.0, 12.0, 8.0]
    assert goal().reached == 10.0


def test_a_table_has_medians_spread_and_ratios() -> None:
    assert lines_of(TABLE) == [
        ["", "per s", "ms", "ratio"],
        ["slow", "100 (50\N{EN DASH}200)", "4.0", "1.00"],
        ["fast", f"1{SPACE}000 (600\N{EN DASH}1{SPACE}600)", "", "10.00"],
    ]


@pytest.mark.parametrize(
    ("bound", "at_most", "verdict"),
    [
        (10, False, "met"),
        (20, False, "not met: 50% below"),
        (10, True, "met"),
        (8, True, "not met: 25% above"),
    ],
)
def test_a_goal_is_met_or_says_how_far_it_is(bound: float, verdict: str, *, at_most: bool) -> None:
    assert goal(bound, at_most=at_most).verdict == verdict


@pytest.mark.parametrize(("bound", "written"), [(30, "30"), (0.7, "0.7"), (1.05, "1.05")])
def test_a_bound_is_written_as_it_is(bound: float, written: str) -> None:
    assert goal_cells(goal(bound))[2] == f"\N{GREATER-THAN OR EQUAL TO} {written}x"


def test_a_turn_in_which_nothing_was_counted_breaks_nothing() -> None:
    assert quotients([1.0, 0.0], [0.0, 2.0]) == [0.0, 0.0]


def test_figures_have_their_thousands_apart() -> None:
    assert number(1_234_567.891, 1) == f"1{SPACE}234{SPACE}567.9"


def test_a_percentile_is_one_of_the_values() -> None:
    assert percentile(range(100), 0.99) == 99
    assert percentile([5.0], 0.5) == 5.0
    assert percentile([], 0.5) == 0.0


def test_a_page_keeps_what_people_wrote_and_gets_its_figures() -> None:
    page = (
        "# Speed\nby hand\n<!-- figures: one -->\nold\n<!-- end of figures -->\nbounded by x\n"
        "<!-- figures: two -->\n<!-- end of figures -->\n"
    )
    filled = fill(page, Report(machine={}, parts=[part()]), ["one", "two"])
    assert filled.startswith("# Speed\nby hand\n<!-- figures: one -->\nDone so. (medians of 3")
    assert "| slow | 100 (50\N{EN DASH}200) | 4.0 | 1.00 |" in filled
    assert "Checked at the end: all is right." in filled
    assert "old" not in filled
    assert "\nbounded by x\n" in filled
    assert filled.endswith("<!-- figures: two -->\nNot measured yet.\n<!-- end of figures -->\n")
    assert fill(filled, Report(machine={}, parts=[part()]), ["one", "two"]) == filled
    assert places(page) == ["one", "two"]


def test_a_page_may_not_ask_for_figures_that_nobody_makes() -> None:
    with pytest.raises(UnknownFigures):
        fill("<!-- figures: three -->\n<!-- end of figures -->", Report(machine={}), ["one"])


def test_all_goals_stand_together_by_their_numbers() -> None:
    parts = [
        part("one", (goal(number="13"), goal(number="4b"))),
        part("two", (goal(number="4a"),)),
    ]
    page = "<!-- figures: goals -->\n<!-- end of figures -->"
    filled = fill(page, Report(machine={}, parts=parts), ["one", "two"])
    assert [line.split(" | ")[0] for line in filled.splitlines()[3:-1]] == ["| 4a", "| 4b", "| 13"]


def test_a_part_that_is_measured_again_takes_the_place_of_the_old_one() -> None:
    report = Report(machine={}, parts=[part("two")]).with_part(part("one"), ["one", "two"])
    again = report.with_part(part("two", (goal(),)), ["one", "two"])
    assert [one.name for one in again.parts] == ["one", "two"]
    assert again.parts[1].measured is not None
    assert again.parts[1].measured.goals
