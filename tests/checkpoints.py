"""A checkpoint directory with the nano's tokenizer and a random tiny model, in a fraction of a second."""

from dataclasses import replace

import torch
from conftest import NANO

from lhrm_train.checkpoint import save_checkpoint
from lhrm_train.format import Manifest
from tests.tiny_model import tiny_llama


def tiny_checkpoint(target, name="tiny", weight=0.0, **manifest):
    """Write it to `target`; another `weight` gives another model."""
    fresh = {"name": name, "recipe": {}, "evaluation": {}, "savings_calibration": None}
    own = replace(Manifest.load(NANO), **{**fresh, **manifest})
    lm = tiny_llama(1024)
    lm.config.max_position_embeddings = 512  # room for every question of the suite
    with torch.no_grad():
        lm.model.norm.weight += weight
    save_checkpoint(lm, own, NANO, target)
    return target
