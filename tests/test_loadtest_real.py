"""The load test against a gateway with the real engine: greedy answers are the same again, and the suite is scored."""

import pytest
from lhrm_loadtest.__main__ import main
from lhrm_loadtest.rows import read_rows
from lhrm_loadtest.summary import summarise

pytestmark = pytest.mark.engine


def test_two_runs_on_the_suite_agree(real_gateway, tmp_path):
    replies = []
    for name, concurrency in (("one", "1"), ("four", "4")):
        out = tmp_path / name
        more = ("--prompts", "nano", "--n", "16", "--max-tokens", "120", "--concurrency", concurrency)
        assert main(["run", "--base-url", real_gateway, "--out", str(out), *more]) == 0
        rows = [row for row in read_rows(out) if not row.warmup]
        assert {row.error for row in rows} == {None}
        assert all(row.reply.source == ("model" if row.arm == "auto" else "request") for row in rows)
        assert all((row.reply.p_think is None) == (row.arm != "auto") for row in rows)
        replies.append({(row.arm, row.prompt): (row.reply.mode, row.reply.answer) for row in rows})
        summary = summarise(rows)
        assert summary.arms["think"].accuracy > 0.8
        assert summary.oracle.accuracy >= max(arm.accuracy for arm in summary.arms.values())
        assert summary.differences["no_think"].ratio.value < 0.5
        assert len(summary.curve) > 1
    same = sum(replies[0][key] == replies[1][key] for key in replies[0])
    # A batch of another size may round a close call the other way.
    assert same >= 0.95 * len(replies[0])
