"""The report: made of rows alone, in Markdown and as one page, and how a run is held against another."""

from __future__ import annotations

import json
import re
from html import escape
from html.parser import HTMLParser

import pytest
from lhrm_loadtest.__main__ import main
from lhrm_loadtest.arms import Arm
from lhrm_loadtest.compare import LIMITS, Limit, Side, compare, paired_change, parse_limit
from lhrm_loadtest.errors import LoadTestError
from lhrm_loadtest.grids import Grid, grids
from lhrm_loadtest.page import page
from lhrm_loadtest.plan import Step
from lhrm_loadtest.report import Report, markdown, print_grid, read_report
from lhrm_loadtest.rows import RowWriter, drop_cut_line, read_rows
from lhrm_loadtest.run_info import RunInfo, Settings, write_run
from lhrm_loadtest.slo import Slo
from lhrm_loadtest.summary import summarise
from lhrm_loadtest.terminal import console
from lhrm_loadtest.values import value_line
from loadtest_rows import ROWS, reply, row, write

PNG = b"\x89PNG\r\n\x1a\n"


def last_line(capsys) -> str:
    return capsys.readouterr().out.splitlines()[-1]


def test_report_is_made_of_rows_alone_in_any_order(tmp_path, capsys):
    for name, rows in (("one", ROWS), ("two", ROWS[::-1])):
        write(tmp_path / name, rows)
        assert main(["report", str(tmp_path / name)]) == 0
        assert last_line(capsys) == value_line(summarise(ROWS))
    for name in ("report.md", "report.html", "plots/tokens.png", "plots/latency.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert (tmp_path / "one" / "plots" / "tokens.png").read_bytes().startswith(PNG)
    text = (tmp_path / "one" / "report.md").read_text()
    assert "| completion tokens, mean | 16.7 | 55.0 |" in text
    assert "1 of 2" in text
    assert "| 500 engine_error: engine failed | 1 |" in text


def test_objectives_and_prices_may_be_given_later(tmp_path, capsys):
    write(tmp_path, ROWS)
    args = ["report", str(tmp_path), "--price-completion", "10", "--slo", "total<=100", "--slo", "first_answer<=70"]
    assert main(args) == 0
    text = (tmp_path / "report.md").read_text()
    assert "| cost of 1000 requests | 0.1667 | 0.55 |" in text
    # Of four requests each, two of auto and one of always-think are complete after 100 ms.
    assert "| 50.0 |" in text
    assert "| 25.0 |" in text
    assert "cost of 1000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "named"), [(["--slo", "total<=x"], "slo = 'total<=x'"), (["--price-prompt", "-1"], "price-prompt = -1.0")]
)
def test_a_report_that_cannot_be_read_as_asked(tmp_path, capsys, args, named):
    write(tmp_path, ROWS)
    assert main(["report", str(tmp_path), *args]) == 1
    assert named in capsys.readouterr().err


def test_the_page_needs_no_other_file(tmp_path):
    write(tmp_path, ROWS)
    assert main(["report", str(tmp_path)]) == 0
    text = (tmp_path / "report.html").read_text()
    assert len(re.findall(r'src="data:image/png;base64,', text)) == len(list((tmp_path / "plots").iterdir())) >= 3
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert "<script" not in text
    parser = Balance()
    parser.feed(text)
    assert parser.open == []
    for grid in grids(read_report(tmp_path).summary):
        assert f"<h2>{escape(grid.title)}</h2>" in text


class Balance(HTMLParser):
    """Keeps the elements that are open; fails on one that closes another's."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_text_cannot_break_the_page_or_a_table():
    grid = Grid("<b>", ["&"], [["<script>alert(1)</script>"]])
    text = page("<i>", [("<a>", "<c>")], [grid], [], ["<n>"], "<v>")
    assert not re.search(r"<(b|i|a|c|n|v|script)>", text)
    bad = row("auto", "a", None, pair=0).model_copy(update={"error": "x | y\nz"})
    good = row("auto", "b", reply("think", 9), pair=1)
    report = read_like([bad, good])
    assert "| x \\| y z | 1 |" in markdown(report, [])


def test_brackets_reach_the_terminal(capsys):
    print_grid(Grid("[t]", ["[head]"], [["[red]x[/red] [1, 2]"]]), console())
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("[t]", "[head]", "[red]x[/red] [1, 2]"))


def read_like(rows):
    return Report(rows, None, [], summarise(rows))


def test_report_without_a_complete_pair_fails(tmp_path, capsys):
    write(tmp_path, ROWS[6:])
    assert main(["report", str(tmp_path)]) == 1
    assert last_line(capsys).startswith("pairs=0 ")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "cannot read"),
        ("", "no rows"),
        ("{}\n", "rows.jsonl:1: position"),
        ("nonsense\n", "rows.jsonl:1"),
        ('{"cut off": ', "no rows"),
    ],
)
def test_unusable_rows(tmp_path, capsys, content, named):
    if content is not None:
        (tmp_path / "rows.jsonl").write_text(content)
    assert main(["report", str(tmp_path)]) == 1
    assert named in capsys.readouterr().err


def test_unknown_keys_in_rows_are_refused(tmp_path):
    raw = {**json.loads(ROWS[0].model_dump_json()), "surprise": 1}
    (tmp_path / "rows.jsonl").write_text(json.dumps(raw) + "\n")
    with pytest.raises(LoadTestError, match=r"rows\.jsonl:1: surprise = 1"):
        read_rows(tmp_path)


def test_rows_survive_the_file(tmp_path):
    odd = ROWS[0].model_copy(update={"error": "a\u2028b\x85c"})
    write(tmp_path, [odd, *ROWS[1:]])
    assert read_rows(tmp_path) == [odd, *ROWS[1:]]
    with pytest.raises(LoadTestError, match="choose another --out"):
        RowWriter(tmp_path)


def test_the_last_row_of_a_request_counts(tmp_path):
    again = row("auto", "d", reply("think", 9), pair=3, position=7, session=1)
    write(tmp_path, [*ROWS, again])
    assert read_rows(tmp_path) == [*ROWS[:-1], again]


def test_a_cut_off_row_is_left_out_and_can_be_dropped(tmp_path):
    write(tmp_path, ROWS)
    path = tmp_path / "rows.jsonl"
    whole = path.read_text()
    path.write_text(whole[:-20])
    assert read_rows(tmp_path) == ROWS[:-1]
    drop_cut_line(tmp_path)
    with RowWriter(tmp_path, resume=True) as writer:
        writer.write(ROWS[-1])
    assert path.read_text() == whole


def test_a_file_without_rows_goes(tmp_path):
    with RowWriter(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


WORSE = [
    one.model_copy(
        update={"reply": one.reply.model_copy(update={"completion_tokens": one.reply.completion_tokens + 10})}
    )
    if one.reply and one.arm == "auto"
    else one
    for one in ROWS
]


def side(rows) -> Side:
    return Side(rows, summarise(rows))


def test_the_same_run_has_no_regression():
    assert not any(change.regressed for change in compare(side(ROWS), side(ROWS), LIMITS))


def test_a_regression_is_what_passes_its_limit():
    changes = compare(side(ROWS), side(WORSE), LIMITS)
    assert [(one.arm, one.figure) for one in changes if one.regressed] == [("auto", "completion_tokens")]
    (tokens,) = (one for one in changes if one.regressed)
    assert (tokens.before, tokens.after) == (pytest.approx(50 / 3), pytest.approx(80 / 3))
    assert (tokens.paired.value, tokens.paired.low, tokens.paired.high) == (10, 10, 10)
    assert not any(one.regressed for one in compare(side(WORSE), side(ROWS), LIMITS))


@pytest.mark.parametrize(
    ("limit", "before", "after", "lower_is_better", "passed"),
    [
        (Limit(0.1, True), 100, 110, True, False),
        (Limit(0.1, True), 100, 111, True, True),
        (Limit(0.1, True), 100, 50, True, False),
        (Limit(0.01, False), 0.9, 0.89, False, False),
        (Limit(0.01, False), 0.9, 0.88, False, True),
        (Limit(0.01, False), 0.9, 0.99, False, False),
        (Limit(0.5, True), 0, 0.001, True, True),
    ],
)
def test_limits(limit, before, after, lower_is_better, passed):
    assert limit.passed(before, after, lower_is_better) is passed


def test_paired_change_is_over_the_common_prompts():
    before = [row("auto", "a", reply("think", 10), pair=0, score=1.0), row("auto", "b", reply("think", 20), pair=1)]
    after = [
        row("auto", "a", reply("think", 13), pair=0, score=0.0),
        row("auto", "a", reply("think", 15), pair=1, score=1.0, repeat=1),
        row("auto", "c", reply("think", 99), pair=2),
    ]
    assert paired_change(before, after, "auto", "completion_tokens").value == 4
    assert paired_change(before, after, "auto", "accuracy").value == -0.5
    assert paired_change(before, after, "auto", "total_p95_ms") is None
    assert paired_change(before, after[2:], "auto", "accuracy") is None


@pytest.mark.parametrize("text", ["accuracy", "speed=1", "accuracy=-1", "accuracy=x", "accuracy=nan%"])
def test_limits_that_cannot_be_read(text):
    with pytest.raises(LoadTestError, match=f"limit = '{text}'"):
        parse_limit(text)


def test_compare_command(tmp_path, capsys):
    for name, rows in (("a", ROWS), ("b", WORSE)):
        write(tmp_path / name, rows)
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    assert main(["compare", a, a]) == 0
    assert last_line(capsys) == "regressions=0"
    assert main(["compare", a, b]) == 3
    assert last_line(capsys) == "regressions=1 auto.completion_tokens"
    assert main(["compare", a, b, "--limit", "completion_tokens=70%"]) == 0
    assert main(["compare", a, b, "--limit", "completion_tokens=70%", "--limit", "completion_tokens_p95=1"]) == 3
    assert last_line(capsys) == "regressions=1 auto.completion_tokens_p95"


def test_what_the_second_run_lacks_is_no_pass(tmp_path, capsys):
    unscored = [one.model_copy(update={"score": None}) for one in ROWS]
    for name, rows in (("a", ROWS), ("b", unscored), ("c", [one for one in ROWS if one.arm == "think"])):
        write(tmp_path / name, rows)
    a, b, c = (str(tmp_path / name) for name in "abc")
    assert main(["compare", a, b]) == 3
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1] == "regressions=2 auto.accuracy think.accuracy"
    assert captured.out.count(" missing ") == 2
    assert main(["compare", b, a]) == 0
    assert main(["compare", a, c]) == 3
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1].startswith(
        "regressions=5 auto.accuracy auto.completion_tokens auto.error_rate"
    )
    assert "warning: B has no rows of auto" in captured.err
    assert main(["compare", c, a]) == 0


def test_a_limit_on_what_neither_run_has_is_no_pass(tmp_path, capsys):
    write(tmp_path, ROWS)
    assert main(["compare", str(tmp_path), str(tmp_path), "--limit", "goodput=10%"]) == 1
    assert "limit = goodput: neither run has such a figure; goodput needs --slo" in capsys.readouterr().err
    assert main(["compare", str(tmp_path), str(tmp_path), "--limit", "goodput=10%", "--slo", "total<=100"]) == 1
    busy = [one.model_copy(update={"scheduled_ms": float(place)}) for place, one in enumerate(ROWS)]
    write(tmp_path / "busy", busy)
    both = [str(tmp_path / "busy")] * 2
    assert main(["compare", *both, "--limit", "goodput=10%", "--slo", "total<=100"]) == 0


def test_runs_under_other_loads_or_of_another_length_are_warned_of(tmp_path, capsys):
    write(tmp_path / "a", ROWS)
    write(tmp_path / "b", [one.model_copy(update={"concurrency": 8}) for one in ROWS])
    settings = Settings(
        arms=[Arm(name="auto"), Arm(name="think", mode="think")],
        baseline="think",
        steps=[Step(concurrency=8, requests=9)],
        layout="mixed",
        warmup=0,
    )
    made = {"command": "c", "source": "s", "prompts": 9, "prompts_sha256": "0", "mix": "m", "sessions": ("now",)}
    write_run(tmp_path / "b", RunInfo(**made, settings=settings, servers={}, version="1", machine="x", python="3"))
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    told = capsys.readouterr().err
    assert "warning: the runs had different loads: 4 at a time against 8 at a time" in told
    assert "warning: B: The run is partial: 8 of 18 planned requests were made." in told


def test_goodput_under_different_objectives_is_not_compared():
    with pytest.raises(LoadTestError, match="different SLOs, total<=1 and total<=2: name one with --slo"):
        compare(Side(ROWS, summarise(ROWS), Slo("total", 1)), Side(ROWS, summarise(ROWS), Slo("total", 2)), LIMITS)


def test_runs_without_a_common_arm_cannot_be_compared(tmp_path, capsys):
    write(tmp_path / "a", ROWS)
    write(tmp_path / "b", [row("plain", "a", reply("think", 9), pair=0)])
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 1
    assert "no common arm: auto, think against plain" in capsys.readouterr().err
