import math

import pytest
import torch

from lhrm_train.advantages import Groups, both_fail, decided, intra_rewards, normalise, think_wins

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


@pytest.mark.parametrize(
    ("think", "no_think", "expected"),
    [
        ([1, 0], [0, 0], (True, False)),
        ([0, NAN], [0, 0], (True, True)),
        ([NAN, NAN], [0, 0], (False, False)),
        ([0, 0], [NAN, NAN], (False, False)),
    ],
)
def test_a_prompt_is_decided_where_both_modes_have_a_valid_rollout(think, no_think, expected):
    values = scores(think, no_think)
    assert (decided(values).item(), both_fail(values).item()) == expected


def rewards(values, ties, tokens=(5, 3, 3)):
    return intra_rewards(torch.tensor(values), torch.tensor(tokens, dtype=torch.float32), ties).tolist()


def test_intra_rewards_and_their_ties():
    assert intra_rewards(scores([1, 0], [0, 0]), scores([9, 9], [9, 9]), "all").tolist() == [[[1, 0], [1, 1]]]
    assert rewards([1.0, 1.0, 0.0], "all") == [1, 1, 0]
    assert rewards([1.0, 1.0, 0.0], "first") == [1, 0, 0]
    assert rewards([1.0, 1.0, 0.0], "shortest") == [0, 1, 0]  # the third is as short but wrong
    assert rewards([1.0, 1.0, 1.0], "shortest") == [0, 1, 1]
    out = rewards([NAN, 0.5, 0.5], "first")
    assert math.isnan(out[0])
    assert out[1:] == [1, 0]


def groups(scores_PGN, tokens_PGN=None, delta=0.2):
    tokens_PGN = torch.ones_like(scores_PGN) if tokens_PGN is None else tokens_PGN
    return Groups(scores_PGN, tokens_PGN, torch.full((len(scores_PGN),), delta, dtype=torch.float64))


def test_delta_is_a_strict_margin():
    # N = 10 per mode: means 0.7 against 0.5 differ by exactly the margin, so think does not win.
    seven, five = [1.0] * 7 + [0.0] * 3, [1.0] * 5 + [0.0] * 5
    assert think_wins(groups(torch.tensor([[seven, five]]), delta=0.2), 0.0).tolist() == [False]
    assert think_wins(groups(torch.tensor([[seven, five]]), delta=0.19), 0.0).tolist() == [True]


def test_a_price_per_token_raises_the_margin():
    # think is better by .5 and 10 tokens longer: at .04 a token the margin is .2 + .4.
    better, longer = scores([1, 0], [0, 0]), scores([14, 14], [4, 4])
    assert think_wins(groups(better, longer), 0.0).tolist() == [True]
    assert think_wins(groups(better, longer), 0.04).tolist() == [False]


def test_both_fail():
    assert both_fail(torch.tensor([[[0.0, NAN], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.1]]])).tolist() == [True, False]
