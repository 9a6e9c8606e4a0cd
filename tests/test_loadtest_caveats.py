"""What a report warns of: a baseline without rows, and an order in which the arms did not change places."""

import pytest
from lhrm_loadtest.arms import Arm
from lhrm_loadtest.caveats import caveats
from lhrm_loadtest.errors import LoadTestError
from lhrm_loadtest.options import parser, settings_of
from lhrm_loadtest.order import order_sentence, turns
from lhrm_loadtest.plan import Design, Step, plan, planned_requests
from lhrm_loadtest.prompts import Prompt
from lhrm_loadtest.report import markdown, notes, read_report
from lhrm_loadtest.run_info import RunInfo, Settings, write_run
from lhrm_loadtest.summary import summarise
from loadtest_rows import ROWS, reply, row, write

PROMPTS = [Prompt(id=str(i), messages=[{"role": "user", "content": "q"}], arrival_s=float(i)) for i in range(6)]
CLOSED, FASTER, TRACE = Step(concurrency=2, requests=6), Step(concurrency=4, requests=6), Step(requests=6)


def info(arms=("auto", "think"), baseline="think", requests=4, **more) -> RunInfo:
    settings = Settings(
        arms=[Arm(name=name, mode=name) for name in arms],
        baseline=baseline,
        steps=[Step(concurrency=4, requests=requests)],
        layout="mixed",
        warmup=0,
    )
    made = {"command": "c", "source": "s", "prompts": 4, "prompts_sha256": "0", "mix": "m", "sessions": ("now",)}
    return RunInfo(**made, settings=settings, servers={}, version="1", machine="x", python="3", **more)


def made(arms, steps, layout, repeats):
    """The rows that a plan gives."""
    blocks = plan(PROMPTS, Design(tuple(arms), tuple(steps), layout, repeats, warmup=1, seed=0))
    return [
        row(
            job.arm,
            job.prompt.id,
            reply("think", 9),
            pair=job.pair,
            position=job.position,
            block=job.block,
            warmup=job.warmup,
            concurrency=block.step.concurrency,
            rate=block.step.rate,
        )
        for block in blocks
        for job in block.jobs
    ]


def test_a_run_killed_before_its_baseline_was_asked_is_reported(tmp_path):
    rows = [one for one in ROWS if one.arm == "auto"]
    write(tmp_path, rows)
    write_run(tmp_path, info())
    report = read_report(tmp_path)
    assert report.summary.arms.keys() == {"auto"}
    assert (report.summary.differences, report.summary.pairs) == ({}, 0)
    told = [
        "The run is partial: 4 of 8 planned requests were made.",
        "No request was measured of think.",
        "The baseline think has no rows yet, so there are no differences from it.",
    ]
    assert report.caveats == told
    text = markdown(report, [])
    assert all(f"> **Warning:** {one}" in text for one in told)
    assert "Against think" not in text


def test_a_baseline_that_no_arm_of_the_run_has_is_refused(tmp_path):
    write(tmp_path, ROWS)
    write_run(tmp_path, info(baseline="other"))
    with pytest.raises(LoadTestError, match="baseline = 'other': the arms with rows are auto, think"):
        read_report(tmp_path)


def test_an_arm_alone_counts_its_answers():
    auto = [one for one in ROWS if one.arm == "auto"]
    assert summarise(auto).pairs == 3
    assert summarise(auto[-1:]).pairs == 0


def test_a_whole_run_has_no_caveats():
    rows = made(["auto", "think"], [CLOSED], "mixed", 1)
    assert caveats(rows, info(requests=7), summarise(rows), 0) == []
    assert caveats(rows, None, summarise(rows), 0) == []


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize(("step", "layout"), [(CLOSED, "mixed"), (CLOSED, "blocks"), (TRACE, "blocks")])
def test_the_requests_of_a_plan_are_counted_without_it(step, layout, repeats):
    design = Design(("auto", "think"), (step, step), layout, repeats, warmup=2, seed=0)
    assert planned_requests(design, len(PROMPTS)) == sum(len(block.jobs) for block in plan(PROMPTS, design))


@pytest.mark.parametrize(
    ("arms", "steps", "layout", "repeats", "sentence"),
    [
        (["auto"], [CLOSED], "mixed", 1, ""),
        (
            ["auto", "think"],
            [Step(concurrency=2, requests=8)],
            "mixed",
            1,
            "was balanced: each came in each place as often.",
        ),
        (["auto", "think"], [CLOSED], "blocks", 1, "was not balanced: always auto, then think."),
        (["auto", "think"], [TRACE], "blocks", 1, "was not balanced: always auto, then think."),
        (["auto", "think"], [CLOSED], "blocks", 2, "was balanced: each came in each place as often."),
        (
            ["auto", "think"],
            [CLOSED, FASTER],
            "blocks",
            1,
            "was balanced over all loads together, but not at each: each came in each place as often.",
        ),
        (
            ["auto", "think"],
            [CLOSED],
            "blocks",
            3,
            "changed, but was not balanced: of 3 turns began with auto 1, think 2.",
        ),
        (["auto", "think", "no_think"], [CLOSED], "blocks", 6, "was balanced: each came in each place as often."),
    ],
)
def test_the_order_is_what_the_rows_say(arms, steps, layout, repeats, sentence):
    found = order_sentence(turns(made(arms, steps, layout, repeats)))
    assert found == (f"The order of the arms {sentence}" if sentence else "")


def test_an_order_that_never_changed_is_warned_of():
    rows = made(["auto", "think"], [TRACE], "blocks", 1)
    (told,) = caveats(rows, None, summarise(rows), 0)
    assert told.startswith("The order was not balanced: always auto, then think")
    assert "--repeats 2" in told


def test_the_report_does_not_claim_abba(tmp_path):
    write(tmp_path, made(["auto", "think"], [TRACE], "blocks", 1))
    assert "The order of the arms was not balanced: always auto, then think." in notes(read_report(tmp_path))


def test_repeats_are_not_doubled_unasked():
    args = parser().parse_args(["run", "--rate", "2", "--arms", "auto,think"])
    assert settings_of(args, PROMPTS).repeats == 1
