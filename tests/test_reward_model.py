from dataclasses import replace

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

from lhrm_train.config import ConfigError
from lhrm_train.rewards import ScoreError, scorer
from lhrm_train.rewards.reward_model import RewardModel
from tests.scoring import CONFIG, problem
from tests.tiny_model import tiny_llama

TEMPLATE = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"


@pytest.fixture(scope="module")
def rater(tmp_path_factory):
    """A random reward model that knows a few words and reads at most 8 tokens."""
    path = tmp_path_factory.mktemp("rater")
    words = {"[UNK]": 0, "user": 1, "assistant": 2, "q": 3, "good": 4, "bad": 5, "user:": 6, "assistant:": 7, "<s>": 8}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 8)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained(path)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=9,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        max_position_embeddings=8,
        num_labels=1,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
    )
    LlamaForSequenceClassification(config).save_pretrained(path)
    return path


def test_reward_model_compares_the_logit_with_the_threshold(rater):
    config = replace(CONFIG, model=str(rater))
    good = RewardModel(config).logit(problem(), "good")
    bad = RewardModel(config).logit(problem(), "bad")
    assert good != bad
    for threshold, expected in ((min(good, bad), {1}), (max(good, bad), {0, 1}), (max(good, bad) + 1, {0})):
        rate = scorer("reward_model", replace(config, model_threshold=threshold))
        assert {rate(problem(), "good"), rate(problem(), "bad")} == expected


def test_reward_model_uses_its_own_template_where_it_has_one(rater, monkeypatch):
    model = RewardModel(replace(CONFIG, model=str(rater)))
    model.logit(problem(), "good")
    lm, tokenizer = model._loaded
    seen = []
    monkeypatch.setattr(lm, "forward", lambda **inputs: seen.append(inputs["input_ids"].tolist()) or 1 / 0)
    for template in (None, TEMPLATE):
        monkeypatch.setattr(tokenizer, "chat_template", template)
        with pytest.raises(ZeroDivisionError):
            model.logit(problem(), "good")
    assert seen == [[[8, 6, 3, 7, 4]], [[1, 3, 2, 4]]]


def test_reward_model_refuses_what_it_cannot_rate(rater, monkeypatch):
    model = RewardModel(replace(CONFIG, model=str(rater)))
    with pytest.raises(ScoreError, match="9 tokens exceed the 8"):
        model(problem(), "good " * 5)
    lm, _ = model._loaded
    with torch.no_grad():
        lm.score.weight.fill_(torch.nan)
    with pytest.raises(ScoreError, match="logit = nan"):
        model(problem(), "good")


def test_reward_model_refuses_a_model_of_another_kind(rater, tmp_path):
    with pytest.raises(ConfigError, match=r"missing' cannot be loaded"):
        RewardModel(replace(CONFIG, model=str(tmp_path / "missing")))(problem(), "good")
    lm = tiny_llama()
    lm.config.num_labels = 1
    lm.save_pretrained(tmp_path)
    PreTrainedTokenizerFast.from_pretrained(rater).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"is no reward model: no \['score.weight'\]"):
        RewardModel(replace(CONFIG, model=str(tmp_path)))(problem(), "good")
    many = LlamaForSequenceClassification.from_pretrained(rater, num_labels=3, ignore_mismatched_sizes=True)
    many.save_pretrained(tmp_path / "many")
    PreTrainedTokenizerFast.from_pretrained(rater).save_pretrained(tmp_path / "many")
    with pytest.raises(ConfigError, match="has 3 outputs"):
        RewardModel(replace(CONFIG, model=str(tmp_path / "many")))(problem(), "good")
