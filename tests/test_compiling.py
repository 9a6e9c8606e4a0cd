from dataclasses import replace

import pytest
import torch

from lhrm_train.compiling import compile_layers, missing_tools
from lhrm_train.config import BaseConfig, ConfigError, HFTConfig, LoraConfig
from lhrm_train.format import ChatTokenizer
from lhrm_train.nano import build_base
from lhrm_train.suite.stream import SuiteDemonstrations
from lhrm_train.train_hft import HFTTrainer
from tests.needed import missing
from tests.tiny_model import tiny_llama

HFT = HFTConfig(steps=4, rows=4, warmup_steps=1)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    path = tmp_path_factory.mktemp("base")
    build_base(path, BaseConfig(name="tiny", hidden_size=32, layers=2, heads=2, intermediate_size=48), seed=0)
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))


@pytest.mark.filterwarnings("default")  # torch's compiler warns of itself
@pytest.mark.parametrize("lora", [LoraConfig(), LoraConfig(rank=4)], ids=["whole", "adapters"])
def test_compiled_layers_give_the_same_gradient(base, lora):
    if tools := missing_tools():
        missing(" and ".join(tools))

    def gradients(compile):
        config = replace(HFT, compile=compile, lora=lora, muon_lr=0.0)
        trainer = HFTTrainer(base, config, SuiteDemonstrations(ChatTokenizer.load(base), config, 1), seed=1)
        trainer.optimizers.step = lambda scale, loss: 0.0
        layers = trainer.policy.lm.base_model.layers
        assert [layer._compiled_call_impl is not None for layer in layers] == [compile] * 2
        losses = [trainer.step()["loss"] for _ in range(2)]  # the second batch has groups of other lengths
        trained = [p for p in trainer.policy.lm.parameters() if p.requires_grad]
        return losses, torch.cat([p.grad.flatten() for p in trained])

    compiled_graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    (plain_losses, plain), (losses, compiled) = gradients(False), gradients(True)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > compiled_graphs
    assert losses == pytest.approx(plain_losses, rel=1e-3)
    # Fused, the layers round to bf16 less often.
    assert (plain - compiled).norm() < 0.02 * plain.norm()


def test_without_a_compiler_the_layers_stay_as_they_are(monkeypatch, capsys):
    monkeypatch.setenv("CXX", "no-such-compiler")
    lm = tiny_llama()
    assert not compile_layers(lm)
    assert [layer._compiled_call_impl for layer in lm.model.layers] == [None, None]
    assert "layers are not compiled, the C++ compiler no-such-compiler" in capsys.readouterr().err


def test_what_has_not_been_tried_together_is_refused():
    for other in ({"gradient_checkpointing": True}, {"shard": True, "muon_lr": 0.0}):
        with pytest.raises(ConfigError, match=r"^compile = true goes neither with"):
            HFTConfig(compile=True, **other)
