"""The savings benchmark over a scripted gateway: its SLOs, its sizes, its line, and that it goes on where it ended."""

import gzip
import json
from dataclasses import replace

import pytest
from conftest import ROOT
from fake_gateway import fake_gateway, scripted
from lhrm_loadtest.errors import LoadTestError
from lhrm_loadtest.plan import planned_requests
from lhrm_loadtest.prompts import Prompt, Turn, digest, load_prompts
from lhrm_loadtest.report import Report, read_report
from lhrm_loadtest.rows import read_rows
from lhrm_loadtest.run_info import read_run
from lhrm_loadtest.slo import parse_slo
from lhrm_loadtest.sources import read_source
from lhrm_loadtest.summary import summarise
from loadtest_rows import reply, row, write

from bench.mix import EVALUATED, hard_cells, mixed, read_prompts
from bench.savings import SLO_FACTORS, Size, fix_slos, key_line, main, measure_alone, measure_run, parse
from bench.servers import MODEL
from lhrm_train.rows import ModeSamples, Row, write_rows

TINY = Size(alone=4, streams=(1, 2), per_step=4, repeats=2, warmup=1)


@pytest.fixture(scope="module")
def url(loop_thread, nano_tokenizer):
    script = replace(scripted(nano_tokenizer, "long enough to cost something", "5", p_think=0.1), delay_s=0.001)
    with fake_gateway(loop_thread, nano_tokenizer, script, model_name=MODEL) as (url, _):
        yield url


def test_every_load_has_prompts_of_its_own():
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


def test_a_whole_benchmark(url, tmp_path, monkeypatch):
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
    for other in (replace(TINY, repeats=1), replace(TINY, hard_share=0.0)):
        with pytest.raises(LoadTestError, match="begun with other settings, prompts or weights"):
            measure_run(tmp_path, url, other, slos)
    monkeypatch.setattr("bench.savings.weights_digest", lambda _: "retrained")
    with pytest.raises(LoadTestError, match="begun with other settings, prompts or weights"):
        measure_run(tmp_path, url, TINY, slos)


def test_questions_in_another_mix():
    asked = [
        Prompt(id=f"{level}-{place}", messages=(Turn(role="user", content="?"),), task=kind, level=level)
        for place in range(10)
        for kind, level in (("add", 1), ("add", 2))
    ]
    mix = mixed(asked, {"add 2"}, 8, 0.25, 3)
    assert sorted((prompt.level for prompt in mix), reverse=True) == [2, 2, 1, 1, 1, 1, 1, 1]
    assert [prompt.level for prompt in mix] != sorted(prompt.level for prompt in mix)
    assert len({prompt.id for prompt in mix}) == 8
    with pytest.raises(LoadTestError, match=r"hard share 1\.0: 12 questions are needed, the suite gave 10"):
        mixed(asked, {"add 2"}, 12, 1.0, 3)


def test_a_cell_is_hard_where_no_think_fails_on_validation(tmp_path):
    def evaluated(kind, level, *scores):
        samples = ModeSamples(scores=scores, tokens=(3,) * len(scores))
        return Row(kind, level, False, "bare", kind, 9, 0.5, 1.0, samples, samples)

    path = tmp_path / "rows.jsonl.gz"
    write_rows(path, [evaluated("add", 1, 1, 0), evaluated("add", 2, 0, 0), evaluated("add", 2, 1, 0)])
    assert hard_cells(path) == {"add 2"}


def test_the_suite_in_another_mix():
    hard = hard_cells(EVALUATED)
    assert {"add 5", "story 3"} <= hard
    assert not {"add 1", "facts 1"} & hard
    mix = read_prompts(200, 5, 0.1)
    assert (len(mix), sum(f"{prompt.task} {prompt.level}" in hard for prompt in mix)) == (200, 20)
    assert read_prompts(9, 5, None) == read_source("nano", 9, 5)


@pytest.mark.parametrize("share", ["-0.1", "1.5", "nan", "x"])
def test_a_share_is_from_0_to_1(share, capsys):
    with pytest.raises(SystemExit):
        parse(["--hard-share", share])
    assert f"{share} is not a share from 0 to 1" in capsys.readouterr().err


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


@pytest.mark.parametrize("mix", ["savings", "savings-10"])
def test_slos_settings_and_digests_follow_from_the_published_files(tmp_path, mix):
    def published(name):
        return gzip.decompress((ROOT / "docs" / "benchmarks" / f"{mix}-{name}.gz").read_bytes())

    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "rows.jsonl").write_bytes(published("alone-rows.jsonl"))
    slos = fix_slos(tmp_path)
    assert (tmp_path / "slo.json").read_bytes() == published("slo.json")
    for name in ("alone-", ""):
        (tmp_path / "run.json").write_bytes(published(f"{name}run.json"))
        (tmp_path / "prompts.jsonl").write_bytes(published(f"{name}prompts.jsonl"))
        run = read_run(tmp_path)
        assert digest(load_prompts(tmp_path / "prompts.jsonl")) == run.prompts_sha256
        assert run.settings.slos == (() if name else slos)
        rows = published(f"{name}rows.jsonl")
        assert rows.count(b"\n") == planned_requests(run.settings.design, run.prompts)


def test_an_out_without_rows_is_named(tmp_path, capsys):
    assert main(["--out", str(tmp_path), "--report-only"]) == 1
    assert "bench.savings: cannot read" in capsys.readouterr().err
    assert parse([]).repeats == 3
