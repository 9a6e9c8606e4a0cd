"""Scorer `reward_model`: a sequence-classification model rates the conversation with the answer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lhrm_train.config import ConfigError, RewardConfig
from lhrm_train.problems import Problem
from lhrm_train.rewards.base import ScoreError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class RewardModel:
    """A reward model with one output, loaded at the first call, on the GPU where there is one.

    Its logit is turned into 0 or 1, as in arXiv 2505.14631, so that scores of all domains are comparable.
    """

    def __init__(self, config: RewardConfig) -> None:
        if not config.model:
            raise ConfigError("model = '': scorer 'reward_model' needs a directory or name of a reward model")
        self._name = config.model
        self._threshold = config.model_threshold
        self._loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None

    def __call__(self, problem: Problem, answer: str) -> float:
        """Return 1 when the logit reaches the threshold, else 0. Raises what `logit` raises."""
        return float(self.logit(problem, answer) >= self._threshold)

    def logit(self, problem: Problem, answer: str) -> float:
        """Return the model's logit. Raises ScoreError when the text is too long for it or the logit not finite."""
        import torch

        if self._loaded is None:
            self._loaded = self._load()
        model, tokenizer = self._loaded
        turns = [{"role": message.role, "content": message.content} for message in problem.messages]
        turns.append({"role": "assistant", "content": answer})
        if tokenizer.chat_template:
            # The template writes its own special tokens.
            text = tokenizer.apply_chat_template(turns, tokenize=False)
            inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt")
        else:
            inputs = tokenizer("\n".join(f"{turn['role']}: {turn['content']}" for turn in turns), return_tensors="pt")
        length, limit = inputs["input_ids"].shape[1], getattr(model.config, "max_position_embeddings", math.inf)
        if length > limit:
            raise ScoreError(f"scorer 'reward_model': {length} tokens exceed the {limit} of {self._name}")
        with torch.inference_mode():
            logit = float(model(**inputs.to(model.device)).logits.squeeze())
        if not math.isfinite(logit):
            raise ScoreError(f"scorer 'reward_model': logit = {logit} of {self._name}")
        return logit

    def _load(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        try:
            model, report = AutoModelForSequenceClassification.from_pretrained(
                self._name, dtype="auto", output_loading_info=True
            )
            tokenizer = AutoTokenizer.from_pretrained(self._name)
        except (OSError, ValueError) as exc:
            raise ConfigError(f"model = {self._name!r} cannot be loaded: {exc}") from exc
        if model.config.num_labels != 1:
            raise ConfigError(f"model = {self._name!r} has {model.config.num_labels} outputs; a reward model has 1")
        if report["missing_keys"]:
            # A language model would get a random head and rate at random.
            raise ConfigError(f"model = {self._name!r} is no reward model: no {sorted(report['missing_keys'])}")
        model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
        return model, tokenizer
