"""The savings benchmark over a scripted gateway: its SLOs, its sizes, its line, and that it goes on where it ended."""

import json
from dataclasses import replace

import pytest
from fake_gateway import fake_gateway, scripted
from lhrm_loadtest.errors import LoadTestError
from lhrm_loadtest.report import Report, read_report
from lhrm_loadtest.rows import read_rows
from lhrm_loadtest.slo import parse_slo
from lhrm_loadtest.summary import summarise
from loadtest_rows import reply, row, write

from bench.savings import SLO_FACTORS, Size, fix_slos, key_line, main, measure_alone, measure_run, parse
from bench.servers import MODEL

TINY = Size(alone=4, streams=(1, 2), per_step=4, repeats=2, warmup=1)


@pytest.fixture(scope="module")
def url(loop_thread, nano_tokenizer):
    script = replace(scripted(nano_tokenizer, "long enough to cost something", "5", p_think=0.1), delay_s=0.001)
    with fake_gateway(loop_thread, nano_tokenizer, script, model_name=MODEL) as (url, _):
        yield url


def test_no_prompt_is_measured_twice():
    size = Size(alone=9, streams=(1, 64), per_step=96, repeats=3, warmup=8)
    assert [step.requests for step in size.steps] == [96, 512]
    assert size.prompts == 3 * (96 + 512)


def test_the_slos_are_multiples_of_always_think_alone_and_stay_fixed(tmp_path):
    # First answers after 20, 40, ... 200 ms: the 95th percentile is 191.
    rows = [row("think", f"p{i}", reply("think", 9), pair=i, ms=10.0 * (i + 1), concurrency=1) for i in range(10)]
    cold = row("think", "cold", reply("think", 9), pair=11, ms=9999.0, concurrency=1, warmup=True)
    write(tmp_path / "alone", [*rows, cold])
    assert fix_slos(tmp_path) == ("first_answer<=573.0", "first_answer<=382.0", "first_answer<=955.0")
    assert json.loads((tmp_path / "slo.json").read_text())["always_think_alone_first_answer_p95_ms"] == pytest.approx(
        191
    )
    (tmp_path / "alone" / "rows.jsonl").unlink()
    assert fix_slos(tmp_path)[0] == "first_answer<=573.0"


def test_without_an_answer_there_is_no_slo(tmp_path):
    write(tmp_path / "alone", [row("think", "a", None, pair=0)])
    with pytest.raises(LoadTestError, match="no SLO"):
        fix_slos(tmp_path)


def test_a_whole_benchmark(url, tmp_path):
    measure_alone(tmp_path, url, TINY)
    slos = fix_slos(tmp_path)
    measure_run(tmp_path, url, TINY, slos)
    alone, rows = read_rows(tmp_path / "alone"), read_rows(tmp_path / "run")
    assert {(one.arm, one.concurrency) for one in alone} == {("think", 1)}
    measured = [one for one in rows if not one.warmup]
    assert len(measured) == 3 * 2 * (8 + 16)
    assert len({one.prompt for one in measured}) == TINY.prompts
    assert not {one.prompt for one in alone} & {one.prompt for one in measured}
    values = dict(pair.split("=") for pair in key_line(read_report(tmp_path / "run")).split(" "))
    assert (values["pairs"], values["errors"]) == ("48", "0")
    assert float(values["tokens_ratio"]) < 0.5
    assert {f"goodput_ratio_{factor}x" for factor in SLO_FACTORS} <= values.keys()

    # Again it finds nothing to do; with rows missing it makes them.
    measure_run(tmp_path, url, TINY, slos)
    path = tmp_path / "run" / "rows.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-5]))
    measure_run(tmp_path, url, TINY, slos)
    again = read_rows(tmp_path / "run")
    assert [one.position for one in again] == [one.position for one in rows]
    assert {one.session for one in again} == {0, 1}
    with pytest.raises(LoadTestError, match="begun with other settings"):
        measure_run(tmp_path, url, replace(TINY, repeats=1), slos)


def test_the_key_line_by_hand():
    slos = [parse_slo(f"first_answer<={limit}") for limit in (30, 20, 500)]
    rows = []
    for place in range(4):
        asked = {"auto": ("no_think", 5), "think": ("think", 20), "no_think": ("no_think", 5)}
        for block, (arm, (mode, tokens)) in enumerate(asked.items()):
            gap, ms = (100.0, 5.0) if arm == "auto" else (200.0, 10.0)
            given = reply(mode, tokens, saved=14 if arm == "auto" else None, p_think=0.1 if arm == "auto" else None)
            more = {"block": block, "concurrency": 1, "scheduled_ms": gap * place, "ms": ms}
            rows.append(row(arm, f"p{place}", given, pair=place, score=float(arm != "no_think" or place > 0), **more))
    line = key_line(Report(rows, None, slos, summarise(rows, "think", slos)))
    values = dict(pair.split("=") for pair in line.split(" "))
    assert values["tokens_ratio"] == "0.25"
    # The oracle thinks on the one prompt that no-think gets wrong: 20 + 3 x 5 of 80.
    assert values["tokens_ratio_oracle"] == "0.4375"
    assert (values["accuracy_auto"], values["accuracy_no_think"], values["accuracy_difference"]) == ("1", "0.75", "0")
    # Answers after 10 ms every 100 ms against 20 ms every 200 ms: twice as many, within every SLO.
    assert [values[f"goodput_ratio_{factor}x"] for factor in (3, 2, 5)] == ["2", "2", "2"]
    assert (values["estimated_saved_tokens"], values["true_saved_tokens"], values["estimate_bias_tokens"]) == (
        "14",
        "15",
        "-1",
    )


def test_an_out_without_rows_is_named(tmp_path, capsys):
    assert main(["--out", str(tmp_path), "--report-only"]) == 1
    assert "bench.savings: cannot read" in capsys.readouterr().err
    assert parse([]).repeats == 3
