import gzip
import itertools
from decimal import Decimal
from pathlib import Path

import pytest

from scrip.replay.plan import Rates, make_plan, stem_of
from scrip.replay.report import Percentiles
from scrip.replay.running import Speed
from scrip.replay.target import TargetError, read_target
from scrip.traces import InvalidTrace, Row, read_trace, synthetic_trace

HEAD = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


def test_a_trace_is_read_plain_and_compressed_with_times_from_its_first_row(tmp_path: Path) -> None:
    text = HEAD + "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109"
    (tmp_path / "a.csv").write_text(text)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text.encode()))
    rows = read_trace(tmp_path / "a.csv")
    assert rows == [Row(0.0, 374, 44), Row(4.314579, 396, 109)]
    assert read_trace(tmp_path / "a.csv.gz") == rows
    assert read_trace(tmp_path / "a.csv", limit=1) == rows[:1]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no column TIMESTAMP"),
        (HEAD, "no rows"),
        ("TIMESTAMP,ContextTokens\n", "no column GeneratedTokens"),
        (HEAD + "yesterday,1,1", "line 2"),
        (HEAD + "2023-11-16 18:15:46,1,-1", "line 2: -1 is not a number of tokens"),
        (HEAD + "2023-11-16 18:15:46,1,1\n2023-11-16 18:15:47,x,1", "line 3"),
        (HEAD + "2023-11-16 18:15:46,1", "line 2: a column is missing"),
    ],
)
def test_what_is_no_trace_is_refused_by_its_line(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "a.csv"
    file.write_text(text)
    with pytest.raises(InvalidTrace, match=why):
        read_trace(file)


def test_half_a_compressed_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.csv.gz"
    file.write_bytes(gzip.compress((HEAD + "2023-11-16 18:15:46,1,1\n" * 999).encode())[:-20])
    with pytest.raises(InvalidTrace, match="cannot be read"):
        read_trace(file)


def test_a_made_up_trace_is_shaped_like_a_real_one_and_always_the_same() -> None:
    rows = synthetic_trace(5_000)
    assert rows == synthetic_trace(5_000)
    context = sorted(row.context_tokens for row in rows)
    generated = sorted(row.generated_tokens for row in rows)
    assert 700 < context[2_500] < 1_300
    assert 100 < generated[2_500] < 170
    assert 2_000 < context[4_500] < 4_500
    assert all(a.seconds <= b.seconds for a, b in itertools.pairwise(rows))


def test_the_same_trace_and_options_make_the_same_ids_and_others_make_others() -> None:
    rows = synthetic_trace(100)
    first = make_plan(rows, name="t", models=["b", "a"], accounts=10)
    assert make_plan(rows, name="t", models=["a", "b"], accounts=10) == first
    assert make_plan(rows, name="t", models=["a", "b"], accounts=9).prefix != first.prefix
    assert make_plan(rows[:99], name="t", models=["a", "b"], accounts=10).prefix != first.prefix
    assert make_plan(rows, name="t", models=["a"], accounts=10, prefix="p").jobs[0].id == (
        "p-job-000001"
    )


def test_a_few_accounts_ask_for_most() -> None:
    plan = make_plan(synthetic_trace(5_000), name="t", models=["a"], accounts=100)
    counts = [sum(job.account == name for job in plan.jobs) for name in plan.accounts]
    assert counts[0] > 10 * counts[50]


def test_the_account_is_given_what_its_jobs_need_at_the_most() -> None:
    rows = [Row(0.0, 1_000_000, 0), Row(1.0, 0, 1_000_000)]
    plan = make_plan(rows, name="t", models=["m"], accounts=1)
    rates = {"m": Rates(Decimal(2), Decimal(8), Decimal(0))}
    # The first holds its estimate of 512 output tokens, the second makes more than that.
    assert list(plan.needs(rates).values()) == [Decimal("2.004096") + Decimal(8)]


@pytest.mark.parametrize(
    ("context", "generated", "cost"),
    [(0, 0, "0.5"), (1, 0, "0.5"), (1_000_000, 0, "2"), (333_333, 1, "0.666671")],
)
def test_a_cost_is_rounded_up_at_the_sixth_place_and_never_below_the_minimum(
    context: int, generated: int, cost: str
) -> None:
    rates = Rates(Decimal(2), Decimal("4.5"), Decimal("0.5"))
    assert rates.cost(context, generated) == Decimal(cost)


def test_percentiles_are_times_that_were_measured() -> None:
    found = Percentiles.of([number / 1_000 for number in range(1, 101)])
    assert found == Percentiles(100, 50.0, 90.0, 99.0, 100.0)
    assert Percentiles.of([]) is None


@pytest.mark.parametrize(("text", "factor"), [("max", None), ("real", 1.0), ("60", 60.0)])
def test_a_speed_is_max_real_or_a_number(text: str, factor: float | None) -> None:
    assert Speed.parse(text) == Speed(factor)


@pytest.mark.parametrize("text", ["0", "-1", "inf", "nan", "fast"])
def test_another_speed_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"^(could not convert string to float: )?'?{text}'?$"):
        Speed.parse(text)


def test_what_is_not_given_is_named(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="--base-url, --tenant, --admin-key"):
        read_target(tmp_path, nats_url="nats://127.0.0.1", service_key="k")


def test_the_stem_of_a_trace_is_its_name_without_endings() -> None:
    assert stem_of("azure_2023.csv.gz") == "azure_2023"
