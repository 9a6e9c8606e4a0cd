"""Estimates of memory and time before a run: rough formulas, every assumption printed beside the figure."""

from __future__ import annotations

from dataclasses import dataclass

from lhrm_train.config import HFTConfig, HGPOConfig, LoraConfig

GIB = 2**30


@dataclass(frozen=True)
class Hardware:
    """One accelerator: dense bf16 operations per second, memory bandwidth in bytes per second, memory in bytes, and
    the share of the first two that training and sampling are assumed to reach.
    """

    name: str
    flops: float
    bandwidth: float
    memory: float
    compute_share: float = 0.35
    bandwidth_share: float = 0.25


H100 = Hardware("H100 SXM", 989e12, 3.35e12, 80e9)


@dataclass(frozen=True)
class Shape:
    """The sizes of a model that the formulas need; `kv_size` is what one layer keeps of one token as its key."""

    parameters: float
    layers: int
    hidden_size: int
    vocab_size: int
    kv_size: int


@dataclass(frozen=True)
class Estimate:
    """Memory of one process in bytes by purpose, and seconds on one accelerator."""

    memory: dict[str, float]
    seconds: float

    @property
    def total_bytes(self) -> float:
        """Sum over all purposes."""
        return sum(self.memory.values())


def _weights(shape: Shape, lora: LoraConfig, parts: int) -> dict[str, float]:
    if lora.rank:
        # Two matrices of rank r per adapted projection; a projection is roughly hidden x hidden.
        adapters = shape.layers * len(lora.targets) * 2 * lora.rank * shape.hidden_size
        return {"frozen bf16 weights": 2 * shape.parameters, "adapters and optimiser": 16 * adapters}
    mine = shape.parameters / parts
    return {"fp32 weights": 4 * mine, "gradients": 4 * mine, "AdamW": 8 * mine}


def _activations(shape: Shape, tokens: float, checkpointing: bool) -> dict[str, float]:
    # Per token and layer about 34 * hidden bytes in bf16 without checkpointing, 2 * hidden with it. Logits are there
    # as bf16 and fp32, as log-probabilities, and as gradients of both.
    per_layer = (2 if checkpointing else 34) * shape.hidden_size
    return {"activations": tokens * shape.layers * per_layer, "logits": tokens * shape.vocab_size * 16}


def _keys_and_values(shape: Shape, config: HGPOConfig) -> dict[str, float]:
    tokens = config.generate_batch * config.row_length
    return {"keys and values of sampling": tokens * shape.layers * 2 * shape.kv_size * 2}


def hft(shape: Shape, config: HFTConfig, processes: int, hardware: Hardware) -> Estimate:
    """Estimate stage one: 6 operations per parameter and token, 8 with checkpointing."""
    tokens = config.rows * config.row_length
    parts = processes if config.shard else 1
    memory = _weights(shape, config.lora, parts) | _activations(shape, tokens, config.gradient_checkpointing)
    operations = (8 if config.gradient_checkpointing else 6) * shape.parameters
    # `steps` are updates; every process takes its own rows, so the time does not depend on their number.
    trained = config.steps * config.accumulation * tokens
    return Estimate(memory, trained * operations / (hardware.flops * hardware.compute_share))


def hgpo(shape: Shape, config: HGPOConfig, processes: int, hardware: Hardware) -> Estimate:
    """Estimate stage two: sampling is bound by reading the weights once per position, training by arithmetic.

    Completions are assumed to be half as long as `max_new_tokens`.
    """
    tokens = config.micro_rows * config.row_length
    parts = processes if config.shard else 1
    training = _activations(shape, tokens, config.gradient_checkpointing)
    sampling = _keys_and_values(shape, config)
    # The two phases take turns, so the larger one counts.
    memory = _weights(shape, config.lora, parts) | max(training, sampling, key=lambda part: sum(part.values()))
    memory |= {"bf16 copy that samples": 2 * shape.parameters}
    if not config.lora.rank and config.refresh_reference_every != 1:
        memory |= {"reference": 4 * shape.parameters / parts}
    rollouts = config.prompts * config.rollouts / processes
    batches = max(1.0, rollouts / config.generate_batch)
    per_position = 2 * shape.parameters / (hardware.bandwidth * hardware.bandwidth_share)
    sampling_s = batches * config.max_new_tokens * per_position
    trained = rollouts * config.max_new_tokens / 2
    # One pass each for the old and the reference log-probabilities, then forward and backward per epoch.
    operations = (4 + 6 * config.epochs) * shape.parameters
    training_s = trained * operations / (hardware.flops * hardware.compute_share)
    return Estimate(memory, config.steps * (sampling_s + training_s))


def describe(stage: str, estimate: Estimate, hardware: Hardware, processes: int) -> str:
    """Return the estimate in words, with its assumptions."""
    parts = ", ".join(f"{name} {size / GIB:.1f}" for name, size in estimate.memory.items())
    fits = "" if estimate.total_bytes <= hardware.memory else f", more than the {hardware.memory / GIB:.1f} there are"
    return (
        f"{stage} (estimate): {estimate.total_bytes / GIB:.1f} GiB per process ({parts}){fits}; "
        f"{estimate.seconds / 3600:.1f} h on {processes} x {hardware.name}, assuming "
        f"{hardware.compute_share:.0%} of its arithmetic and {hardware.bandwidth_share:.0%} of its bandwidth"
    )
