import json

import pytest
import torch
from transformers import CohereConfig, CohereForCausalLM, Gemma2Config, Gemma2ForCausalLM, MambaConfig, MambaForCausalLM

from lhrm_train.compatibility import TOLERANCE, check_positions, packed_difference
from lhrm_train.config import ConfigError
from tests.tiny_model import tiny_llama

IDS = [5, 9, 2, 33, 17, 8, 40, 21, 3, 11]
SHAPE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


def test_packed_rows_give_a_llamas_own_logits():
    assert packed_difference(tiny_llama().eval(), IDS) < TOLERANCE / 10


@pytest.mark.parametrize(
    ("model", "config"),
    [
        (CohereForCausalLM, CohereConfig(**SHAPE, logit_scale=0.25)),  # scales its logits
        (Gemma2ForCausalLM, Gemma2Config(**SHAPE, head_dim=16, final_logit_softcapping=0.01)),  # caps them
    ],
)
def test_other_models_are_found_out(model, config):
    torch.manual_seed(0)
    assert packed_difference(model(config).eval(), IDS) > TOLERANCE


def test_recurrent_models_are_found_out():
    torch.manual_seed(0)
    model = MambaForCausalLM(MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, state_size=4))
    with pytest.raises(RuntimeError):
        packed_difference(model.eval(), IDS)


def config_json(tmp_path, **more):
    raw = {"model_type": "mistral", "max_position_embeddings": 4096, **SHAPE, **more}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    return tmp_path


def test_rows_must_fit_the_positions_and_the_window(tmp_path):
    check_positions(config_json(tmp_path, sliding_window=None), 4096)
    with pytest.raises(ConfigError, match="row_length = 4097: the model has 4096 positions"):
        check_positions(tmp_path, 4097)
    check_positions(config_json(tmp_path, sliding_window=512), 512)
    with pytest.raises(ConfigError, match="row_length = 513: the model attends to the last 512 tokens only"):
        check_positions(tmp_path, 513)
