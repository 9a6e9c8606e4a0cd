import math

import torch

from lhrm_train.advantages import hgpo, intra_rewards, normalise, think_wins

NAN = float("nan")


def scores(think, no_think):
    return torch.tensor([[think, no_think]], dtype=torch.float32)


def test_normalise_by_hand():
    # mean 0.5, population std 0.5
    assert normalise(torch.tensor([1.0, 0.0])).tolist() == [1.0, -1.0]
    # mean 0.25, std sqrt(0.1875)
    out = normalise(torch.tensor([1.0, 0.0, 0.0, 0.0]))
    assert torch.allclose(out, torch.tensor([0.75, -0.25, -0.25, -0.25]) / math.sqrt(0.1875))
    assert normalise(torch.tensor([1.0, 1.0])).tolist() == [0.0, 0.0]
    assert normalise(torch.tensor([1.0, NAN, 0.0])).tolist() == [1.0, 0.0, -1.0]


def test_intra_rewards_give_every_tied_best_one():
    assert intra_rewards(scores([1, 0], [0, 0])).tolist() == [[[1, 0], [1, 1]]]


def test_hgpo_when_think_wins():
    # think mean 0.5 > 0 + 0.2: its tag gets +1, the other -1; the intra term rewards the right think sample.
    out = hgpo(scores([1, 0], [0, 0]), alpha=1.0, delta=0.2, mask_both_fail=True)
    assert out.think_wins_P.tolist() == [True]
    assert out.response_PGN.tolist() == [[[1, -1], [0, 0]]]
    assert out.decision_PGN.tolist() == [[[2, 0], [-1, -1]]]


def test_ties_go_to_no_think_and_alpha_scales_the_tag_only():
    out = hgpo(scores([1, 1], [1, 1]), alpha=0.5, delta=0.2, mask_both_fail=True)
    assert out.think_wins_P.tolist() == [False]
    assert out.response_PGN.abs().sum() == 0
    assert out.decision_PGN.tolist() == [[[-0.5, -0.5], [0.5, 0.5]]]


def test_delta_is_a_strict_margin():
    # N = 10 per mode: means 0.7 against 0.5 differ by exactly the margin, so think does not win.
    seven, five = [1.0] * 7 + [0.0] * 3, [1.0] * 5 + [0.0] * 5
    assert think_wins(torch.tensor([[seven, five]], dtype=torch.float64), 0.2).tolist() == [False]
    assert think_wins(torch.tensor([[seven, five]], dtype=torch.float64), 0.19).tolist() == [True]


def test_both_fail_mask():
    failing = scores([0, 0], [0, 0])
    masked = hgpo(failing, 1.0, 0.2, mask_both_fail=True)
    assert masked.both_fail_P.tolist() == [True]
    assert masked.decision_PGN.abs().sum() == 0
    # The paper's own rule pushes such a prompt towards no-think.
    paper = hgpo(failing, 1.0, 0.2, mask_both_fail=False)
    assert paper.decision_PGN.tolist() == [[[-1, -1], [1, 1]]]


def test_an_invalid_rollout_changes_no_other_advantage():
    out = hgpo(scores([1, 0, NAN], [0, 0, 0]), 1.0, 0.2, True)
    assert out.response_PGN[0, 0].tolist() == [1, -1, 0]
    assert out.decision_PGN[0, 0].tolist() == [2, 0, 0]
    assert out.decision_PGN[0, 1].tolist() == [-1, -1, -1]


def test_permuting_a_group_permutes_its_advantages():
    torch.manual_seed(0)
    values = (torch.rand(5, 2, 4) > 0.5).float()
    order = torch.tensor([2, 0, 3, 1])
    straight, permuted = hgpo(values, 1.0, 0.2, True), hgpo(values[:, :, order], 1.0, 0.2, True)
    assert torch.equal(straight.decision_PGN[:, :, order], permuted.decision_PGN)
    assert torch.equal(straight.response_PGN[:, :, order], permuted.response_PGN)
