import math
from dataclasses import replace

import pytest
import torch

from lhrm_train.config import HGPOConfig
from lhrm_train.loss import LossInputs, kl_estimate, policy_loss
from lhrm_train.objectives import objective

PAPER = HGPOConfig(
    beta=0.0, clip=0.5, decision_clip=0.5, decision_objective="ratio", decision_in_kl=True, mask_both_fail=False
)


def run(data, config):
    return policy_loss(data, config, objective("hgpo").terms(config))


def inputs(logp, old, advantage, decision=None, reference=None, rollouts=1):
    logp = torch.tensor(logp, requires_grad=True) if not isinstance(logp, torch.Tensor) else logp
    old = torch.tensor(old)
    reference = old if reference is None else torch.tensor(reference)
    decision = torch.zeros(len(old), dtype=torch.bool) if decision is None else torch.tensor(decision)
    return LossInputs(logp, old, reference, torch.tensor(advantage), decision, rollouts)


def test_ratio_one_gives_minus_the_advantages_over_rollouts():
    out = run(inputs([-1.0, -2.0], [-1.0, -2.0], [1.0, -3.0], rollouts=2), PAPER)
    assert out.loss.item() == pytest.approx(-(1 - 3) / 2)
    assert out.clipped == 0


def test_clipping_by_hand():
    # rho = 2 with A = 1: clipped to 1.5. rho = 0.25 with A = -1: clipped to 0.5, the worse of both.
    out = run(inputs([math.log(0.4), math.log(0.1)], [math.log(0.2), math.log(0.4)], [1.0, -1.0]), PAPER)
    assert out.loss.item() == pytest.approx(-(1.5 - 0.5))
    assert out.clipped == 1.0


def test_kl_by_hand():
    # pi_ref/pi = 2: 2 - ln 2 - 1
    kl = kl_estimate(torch.tensor([math.log(0.25)]), torch.tensor([math.log(0.5)]))
    assert kl.item() == pytest.approx(1 - math.log(2))
    config = replace(PAPER, beta=0.1)
    out = run(inputs([math.log(0.25)], [math.log(0.25)], [0.0], reference=[math.log(0.5)]), config)
    assert out.loss.item() == pytest.approx(0.1 * (1 - math.log(2)))


def test_the_tag_can_be_left_out_of_the_kl():
    config = replace(PAPER, beta=1.0, decision_in_kl=False)
    out = run(inputs([-3.0], [-3.0], [0.0], decision=[True], reference=[-1.0]), config)
    assert out.loss.item() == 0
    assert out.kl == 0


def tag_gradient(p, config):
    """d loss / d log-odds of P(think) when think wins: one rollout per mode, tags forced."""
    logit = torch.tensor(math.log(p / (1 - p)), requires_grad=True)
    logp = torch.stack([torch.nn.functional.logsigmoid(logit), torch.nn.functional.logsigmoid(-logit)])
    data = inputs(logp, logp.detach().tolist(), [1.0, -1.0], decision=[True, True], rollouts=2)
    run(data, config).loss.backward()
    return logit.grad.item()


@pytest.mark.parametrize("p", [0.01, 0.5, 0.99])
def test_the_naive_ratio_never_saturates(p):
    # (1 - p) from the winner plus p from the loser: the push is the same wherever P already is.
    assert tag_gradient(p, PAPER) == pytest.approx(-0.5, rel=1e-4)


@pytest.mark.parametrize("p", [0.01, 0.5, 0.99])
def test_winner_only_saturates_like_cross_entropy(p):
    config = replace(PAPER, decision_objective="winner", decision_clip=0.9)
    assert tag_gradient(p, config) == pytest.approx(-(1 - p) / 2, rel=1e-3)


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        # ratios p/.5 and (1-p)/.5, clip 0.9. At .01 think's ratio is .02 and no-think's 1.98 > 1.9: A < 0 keeps it.
        (0.01, -(0.02 * 0.99 + 1.98 * 0.01) / 2),
        (0.5, -(1.0 * 0.5 + 1.0 * 0.5) / 2),
        # At .99 the winner's ratio 1.98 is above the clip and the loser's .02 below it: both are cut off.
        (0.99, 0.0),
    ],
)
def test_forcing_rate_stops_at_the_clip(p, expected):
    config = replace(PAPER, decision_objective="forcing_rate", decision_clip=0.9)
    assert tag_gradient(p, config) == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_objective_touches_the_tag_only():
    data = inputs([-1.0, -1.0], [-1.0, -1.0], [-1.0, -1.0], decision=[True, False])
    out = run(data, replace(PAPER, decision_objective="winner"))
    assert out.loss.item() == pytest.approx(1.0)


def test_the_weight_of_the_tag():
    data = inputs([-1.0, -1.0], [-1.0, -1.0], [1.0, 1.0], decision=[True, False])
    assert run(data, replace(PAPER, decision_weight=10.0)).loss.item() == pytest.approx(-11.0)
