from dataclasses import fields, is_dataclass

import pytest

from lhrm_train.config import ConfigError, RunConfig, load_config

# Each value just outside of what its setting takes, and what the message says.
OUTSIDE = [
    ("data.limit", -1, "at least 0"),
    ("prompts.decontaminate_ngram", 0, "at least 1"),
    ("test.seed", -1, "between 0 and 2^32 - 1"),
    ("reward.numeric_tolerance", -1.0, "at least 0"),
    ("reward.model_threshold", "inf", "not a finite number"),
    ("reward.no_think_max_tokens", -1, "at least 0"),
    ("hft.steps", 0, "at least 1"),
    ("hft.epochs", -3.0, "at least 0"),
    ("hft.rows", 0, "at least 1"),
    ("hft.accumulation", 0, "at least 1"),
    ("hft.row_length", 0, "at least 1"),
    ("hft.think_share", 1.0, "at least 0 and less than 1"),
    ("hft.think_first_share", 1.0, "at least 0 and less than 1"),
    ("hft.no_think_max_tokens", -1, "at least 0"),
    ("hft.lr", "nan", "not a finite number"),
    ("hft.lr", 0.0, "more than 0"),
    ("hft.muon_lr", -0.1, "at least 0"),
    ("hft.betas", "[0.9, 1.0]", "at least 0 and less than 1"),
    ("hft.weight_decay", -0.1, "at least 0"),
    ("hft.warmup_steps", -1, "at least 0"),
    ("hft.warmup_share", 1.0, "at least 0 and less than 1"),
    ("hft.constant_share", 1.1, "between 0 and 1"),
    ("hft.final_lr_share", -0.1, "between 0 and 1"),
    ("hft.grad_clip", 0.0, "more than 0"),
    ("hft.grad_clip", -1.0, "more than 0"),
    ("hft.save_every", 0, "at least 1"),
    ("hft.lora.rank", -4, "at least 0"),
    ("hft.lora.alpha", 0.0, "more than 0"),
    ("hgpo.lora.dropout", 1.0, "at least 0 and less than 1"),
    ("hgpo.steps", 0, "at least 1"),
    ("hgpo.prompts", 0, "at least 1"),
    ("hgpo.rollouts", 0, "at least 2"),
    ("hgpo.temperature", 0.0, "more than 0"),  # N equal rollouts say nothing
    ("hgpo.max_new_tokens", 0, "at least 1"),
    ("hgpo.alpha", -1.0, "at least 0"),
    ("hgpo.delta", 20.0, "between -1 and 1"),
    ("hgpo.delta_by_kind.add", -1.5, "between -1 and 1"),
    ("hgpo.delta_by_kind.add", "nan", "not a finite number"),
    ("hgpo.token_price", -1e-9, "at least 0"),
    ("hgpo.decision_weight", -1.0, "at least 0"),
    ("hgpo.decision_clip", 0.0, "more than 0"),
    ("hgpo.beta", -1.0, "at least 0"),
    ("hgpo.clip", -1.0, "more than 0"),
    ("hgpo.refresh_reference_every", -1, "at least 0"),
    ("hgpo.reference_rollouts", 0, "at least 1"),
    ("hgpo.lr", "inf", "not a finite number"),
    ("hgpo.betas", "[-0.1, 0.9]", "at least 0 and less than 1"),
    ("hgpo.weight_decay", -1.0, "at least 0"),
    ("hgpo.warmup_updates", -1, "at least 0"),
    ("hgpo.decay_from", 1.5, "between 0 and 1"),
    ("hgpo.minibatches", 0, "at least 1"),
    ("hgpo.epochs", 0, "at least 1"),
    ("hgpo.grad_clip", 0.0, "more than 0"),
    ("hgpo.row_length", 0, "at least 1"),
    ("hgpo.micro_rows", 0, "at least 1"),
    ("hgpo.generate_batch", 0, "at least 1"),
    ("hgpo.save_every", 0, "at least 1"),
    ("eval.prompts", -5, "at least 2"),
    ("eval.prompts", 1, "at least 2"),  # validation takes half
    ("eval.samples", 0, "at least 1"),
    ("eval.temperature", -1.0, "at least 0"),
    ("eval.margin", "nan", "not a finite number"),
    ("eval.max_new_tokens", 0, "at least 1"),
    ("eval.seed", 2**32, "between 0 and 2^32 - 1"),
    ("eval.context_questions", 0, "at least 1"),
    ("eval.hft_samples", 0, "at least 1"),
    ("eval.validation_samples", 0, "at least 1"),
    ("eval.batch", 0, "at least 1"),
    ("eval.chunk", 0, "at least 1"),
    ("eval.concurrency", 0, "at least 1"),
    ("eval.request_timeout_s", 0.0, "more than 0"),
    ("eval.retries", -1, "at least 0"),
    ("eval.resamples", 0, "at least 1"),
    ("eval.confidence", 1.0, "between 0 and 1, without either"),
    ("base.name", "' '", "not empty"),
    ("base.parameters", -1.0, "at least 0"),
    ("base.rope_theta", -1.0, "at least 0"),
    ("base.stretch_positions", -1, "at least 0"),
    ("base.hidden_size", 0, "at least 1"),
    ("base.layers", 0, "at least 1"),
    ("base.heads", 0, "at least 1"),
    ("base.intermediate_size", 0, "at least 1"),
    ("base.vocab_size", 262, "at least 263"),
    ("base.max_positions", 0, "at least 1"),
    ("hft_seed", -1, "between 0 and 2^32 - 1"),
    ("hgpo_seed", -1, "between 0 and 2^32 - 1"),
    ("threads", -1, "at least 0"),
]


@pytest.mark.parametrize(("name", "value", "message"), OUTSIDE, ids=[f"{n}={v}" for n, v, _ in OUTSIDE])
def test_values_out_of_bounds(name, value, message):
    with pytest.raises(ConfigError) as caught:
        load_config(None, [f"{name}={value}"])
    where, found = str(caught.value).rsplit(": ", 1)
    assert where.startswith(name)
    assert found == message


def numbers_in(settings, where=""):
    for field in fields(settings):
        value = getattr(settings, field.name)
        if is_dataclass(value):
            yield from numbers_in(value, f"{where}{field.name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield where + field.name


def test_every_number_has_a_bound_that_is_tried():
    tried = {name for name, _, _ in OUTSIDE}
    # Tables of one shape are tried in one place.
    for places in (("data.", "prompts.", "test."), ("hft.lora.", "hgpo.lora.")):
        for tail in {name.removeprefix(place) for name in tried for place in places if name.startswith(place)}:
            tried |= {place + tail for place in places}
    assert set(numbers_in(RunConfig())) <= tried
