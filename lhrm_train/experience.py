"""One step's experience: forced completions of both modes, scored and turned into advantages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lhrm_train.advantages import NO_THINK, THINK, Groups, both_fail, decided, think_wins
from lhrm_train.config import HGPOConfig
from lhrm_train.data import Sample
from lhrm_train.format import ChatTokenizer, Mode, encode_chat
from lhrm_train.objectives import objective
from lhrm_train.problems import Problem
from lhrm_train.rewards import Judge, Judged
from lhrm_train.rollout import choices, generate_forced

MODES = (Mode.THINK, Mode.NO_THINK)


@dataclass(frozen=True)
class Experience:
    """The rollouts of one step, flattened in (P, G, N) order, with their two advantages per rollout (R,)."""

    samples: list[Sample]
    response_R: Tensor
    decision_R: Tensor
    metrics: dict[str, float]


@dataclass(frozen=True)
class _Sampled:
    """Completions and their scores in (P, G, N) order."""

    samples: list[Sample]
    judged: list[Judged]
    shape: tuple[int, int, int]

    def tensor(self, name: str) -> Tensor:
        values = [float(getattr(one, name)) for one in self.judged]
        return torch.tensor(values).view(self.shape)


def _sample(
    policy: PreTrainedModel,
    tokenizer: ChatTokenizer,
    judge: Judge,
    prompts: list[list[int]],
    problems: Sequence[Problem],
    config: HGPOConfig,
) -> _Sampled:
    half = config.rollouts // 2
    samples: list[list[list[Sample]]] = []
    judged: list[list[list[Judged]]] = []
    for mode in MODES:
        drawn = generate_forced(
            policy,
            tokenizer,
            prompts,
            mode,
            half,
            config.temperature,
            config.max_new_tokens,
            config.generate_batch,
        )
        tag = tokenizer.tags.opening(mode)
        samples.append([[Sample(p, [tag, *ids]) for ids in g] for p, g in zip(prompts, drawn, strict=True)])
        judged.append(
            [[judge.judge(problem, mode, ids) for ids in g] for problem, g in zip(problems, drawn, strict=True)]
        )
    return _Sampled(
        [sample for pair in zip(*samples, strict=True) for group in pair for sample in group],
        [one for pair in zip(*judged, strict=True) for group in pair for one in group],
        (len(prompts), len(MODES), half),
    )


def reference_scores(
    reference: PreTrainedModel,
    tokenizer: ChatTokenizer,
    judge: Judge,
    problems: Sequence[Problem],
    config: HGPOConfig,
) -> Tensor:
    """Return the mean score of the reference's own think answers per problem (P,); NaN where none is valid."""
    prompts = [encode_chat(tokenizer, problem.messages, None) for problem in problems]
    drawn = generate_forced(
        reference,
        tokenizer,
        prompts,
        Mode.THINK,
        config.reference_rollouts,
        config.temperature,
        config.max_new_tokens,
        config.generate_batch,
    )
    scores = [[judge.judge(p, Mode.THINK, ids).score for ids in g] for p, g in zip(problems, drawn, strict=True)]
    return torch.tensor(scores).nanmean(-1)


def gather(
    policy: PreTrainedModel,
    tokenizer: ChatTokenizer,
    judge: Judge,
    problems: Sequence[Problem],
    config: HGPOConfig,
    reference_P: Tensor | None = None,
) -> Experience:
    """Sample and score both modes on every problem, and compute the advantages of `config.objective`."""
    prompts = [encode_chat(tokenizer, problem.messages, None) for problem in problems]
    free = choices(policy, tokenizer, prompts)
    sampled = _sample(policy, tokenizer, judge, prompts, problems, config)
    groups = Groups(
        scores_PGN=sampled.tensor("score"),
        tokens_PGN=sampled.tensor("completion_tokens"),
        # In double precision, as the means they are compared with: .7 in single precision is less than .7.
        delta_P=torch.tensor(
            [config.delta_by_kind.get(problem.kind, config.delta) for problem in problems], dtype=torch.float64
        ),
        reference_P=reference_P,
    )
    advantages = objective(config.objective).advantages(groups, config)
    p_think_P = torch.tensor([choice.p_think for choice in free])
    metrics = _metrics(groups, sampled, p_think_P, think_wins(groups, config.token_price))
    metrics["tag_mass"] = sum(choice.mass for choice in free) / len(free)
    return Experience(sampled.samples, advantages.response_PGN.flatten(), advantages.decision_PGN.flatten(), metrics)


def _metrics(groups: Groups, sampled: _Sampled, p_think_P: Tensor, wins_P: Tensor) -> dict[str, float]:
    out: dict[str, float] = {}
    answer_PGN, leaks_PGN = sampled.tensor("answer_tokens"), sampled.tensor("leak_words")
    truncated_PGN, leaked_PGN = sampled.tensor("truncated"), sampled.tensor("leaked")
    for name, g in (("think", THINK), ("no_think", NO_THINK)):
        out[f"accuracy_{name}"] = groups.scores_PGN[:, g].nanmean().item()
        out[f"tokens_{name}"] = groups.tokens_PGN[:, g].mean().item()
        out[f"answer_tokens_{name}"] = answer_PGN[:, g].mean().item()
        out[f"truncated_{name}"] = truncated_PGN[:, g].mean().item()
        out[f"tag_leak_{name}"] = leaked_PGN[:, g].mean().item()
    chosen_P, decided_P = p_think_P >= 0.5, decided(groups.scores_PGN)
    return out | {
        "leak_words_no_think": (leaks_PGN[:, NO_THINK] > 0).float().mean().item(),
        "overlong_no_think": sampled.tensor("overlong")[:, NO_THINK].mean().item(),
        "invalid": groups.scores_PGN.isnan().float().mean().item(),
        "both_fail": both_fail(groups.scores_PGN).float().mean().item(),
        "undecided": (~decided_P).float().mean().item(),
        "think_wins": wins_P[decided_P].float().mean().item(),
        "think_rate": chosen_P.float().mean().item(),
        "p_think": p_think_P.mean().item(),
        "agreement": (chosen_P == wins_P)[decided_P].float().mean().item(),
    }
