from dataclasses import replace

import pytest
import torch

from lhrm_train.advantages import Groups
from lhrm_train.config import ConfigError, HGPOConfig
from lhrm_train.objectives import OBJECTIVES, objective
from lhrm_train.objectives.base import forcing_rate, ratio, winner

NAN = float("nan")
HGPO = HGPOConfig()


def groups(think, no_think, delta=0.2, reference=None):
    values = torch.tensor([[think, no_think]], dtype=torch.float32)
    return Groups(values, torch.ones_like(values), torch.tensor([delta]), reference)


def advantages(name, data, config=HGPO):
    out = objective(name).advantages(data, config)
    return out.response_PGN, out.decision_PGN


def test_adaptthink_learns_nothing_where_the_reference_is_invalid():
    response, decision = advantages("adaptthink", groups([1, 0], [1, 0], reference=torch.tensor([NAN])))
    assert response.abs().sum() == decision.abs().sum() == 0


def test_hgpo_when_think_wins():
    # think mean 0.5 > 0 + 0.2: its tag gets +1, the other -1; the intra term rewards the right think sample.
    response, decision = advantages("hgpo", groups([1, 0], [0, 0]))
    assert response.tolist() == [[[1, -1], [0, 0]]]
    assert decision.tolist() == [[[2, 0], [-1, -1]]]


@pytest.mark.parametrize("rollouts", [2, 3, 4, 8])
@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_winner_never_pushes_the_losing_tag_up(rollouts, alpha):
    data = groups([1] + [0] * (rollouts - 1), [1] * rollouts)  # the one right think sample stands out in its mode
    think, no_think = advantages("hgpo", data, replace(HGPO, alpha=alpha))[1][0]
    assert think.max() <= 0 < no_think.min()
    literal = advantages("hgpo", data, replace(HGPO, alpha=alpha, decision_objective="ratio"))[1][0, 0]
    assert literal[0] == pytest.approx((rollouts - 1) ** 0.5 - alpha)


def test_hgpo_ties_go_to_no_think_and_alpha_scales_the_tag_only():
    response, decision = advantages("hgpo", groups([1, 1], [1, 1]), replace(HGPO, alpha=0.5))
    assert response.abs().sum() == 0
    assert decision.tolist() == [[[-0.5, -0.5], [0.5, 0.5]]]


def test_hgpo_masks_the_inter_term_where_both_modes_fail():
    failing = groups([0, 0], [0, 0])
    assert advantages("hgpo", failing)[1].abs().sum() == 0
    # The paper's own rule pushes such a prompt towards no-think.
    paper = replace(HGPO, mask_both_fail=False)
    assert advantages("hgpo", failing, paper)[1].tolist() == [[[-1, -1], [1, 1]]]


def test_hgpo_margin_of_one_kind_of_question():
    assert advantages("hgpo", groups([1, 0], [0, 0], delta=0.6))[1].tolist() == [[[0, -2], [1, 1]]]


def test_an_invalid_rollout_changes_no_other_advantage():
    response, decision = advantages("hgpo", groups([1, 0, NAN], [0, 0, 0]))
    assert response[0, 0].tolist() == [1, -1, 0]
    assert decision[0, 0].tolist() == [2, 0, 0]
    assert decision[0, 1].tolist() == [-1, -1, -1]


@pytest.mark.parametrize("paper", [False, True])
def test_a_mode_without_a_valid_rollout_neither_wins_nor_loses(paper):
    config = replace(HGPO, mask_both_fail=not paper, decision_objective="ratio")
    for think, no_think in (([NAN, NAN], [1, 0]), ([1, 0], [NAN, NAN]), ([NAN, NAN], [0, 0])):
        response, decision = advantages("hgpo", groups(think, no_think), config)
        assert decision.tolist() == response.tolist()  # the intra term alone
        assert not decision.isnan().any()
        assert advantages("hgpo", groups(think, no_think))[1].max() <= 0  # no winner, so no tag is pushed up


def test_grpo_pools_both_modes():
    # Scores 1 0 | 0 0: mean .25, population std sqrt(.1875) = .4330.
    response, decision = advantages("grpo", groups([1, 0], [0, 0]))
    assert response[0, 0].tolist() == pytest.approx([0.75 / 0.4330127, -0.25 / 0.4330127])
    assert torch.equal(response, decision)
    assert advantages("grpo", groups([1, 1], [1, 1]))[0].abs().sum() == 0
    assert advantages("grpo", groups([1, NAN], [0, 0]))[0][0, 0, 1] == 0


def test_adaptthink_measures_against_the_reference():
    # no-think, right: .05 + 1 - .75; think, wrong: 0 - .75.
    data = groups([1, 0], [1, 0], delta=0.05, reference=torch.tensor([0.75]))
    response, decision = advantages("adaptthink", data)
    assert response[0, 0].tolist() == pytest.approx([0.25, -0.75])
    assert response[0, 1].tolist() == pytest.approx([0.3, -0.7])
    assert torch.equal(response, decision)
    with pytest.raises(ValueError, match="reference scores"):
        advantages("adaptthink", groups([1, 0], [1, 0]))


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_permuting_a_group_permutes_its_advantages(name):
    torch.manual_seed(0)
    values = (torch.rand(5, 2, 4) > 0.5).float()
    order = torch.tensor([2, 0, 3, 1])

    def of(scores_PGN):
        data = Groups(scores_PGN, torch.ones_like(scores_PGN), torch.full((5,), 0.2), torch.full((5,), 0.5))
        return objective(name).advantages(data, HGPO)

    straight, permuted = of(values), of(values[:, :, order])
    assert torch.equal(straight.decision_PGN[:, :, order], permuted.decision_PGN)
    assert torch.equal(straight.response_PGN[:, :, order], permuted.response_PGN)


def test_how_each_objective_trains_the_tag():
    assert objective("hgpo").terms(HGPO) is winner
    assert objective("hgpo").terms(replace(HGPO, decision_objective="ratio")) is ratio
    assert objective("grpo").terms(HGPO) is ratio
    assert objective("adaptthink").terms(HGPO) is forcing_rate
    assert [name for name in OBJECTIVES if OBJECTIVES[name].needs_reference] == ["adaptthink"]


def test_an_unknown_objective_names_the_known_ones():
    with pytest.raises(ConfigError, match="'best'; known: hgpo, grpo, adaptthink"):
        objective("best")
