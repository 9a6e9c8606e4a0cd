"""Layers compiled by torch, so that what lies between their matrix products is fused into few passes over memory."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from lhrm_train.attention import register


def missing_tools() -> list[str]:
    """Return what torch's compiler needs for a CPU and this machine lacks."""
    compiler = os.environ.get("CXX", "g++")  # as torch chooses it
    missing = [] if shutil.which(compiler) else [f"the C++ compiler {compiler}"]
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        missing.append("Python's headers")
    return missing


def compile_layers(lm: PreTrainedModel) -> bool:
    """Compile every decoder layer of `lm` at its first use, and return True.

    Where a CPU's tools are missing, say so and return False: results differ in rounding only, time by a fifth.
    """
    if lm.device.type == "cpu" and (missing := missing_tools()):
        print(f"hft.compile: layers are not compiled, {' and '.join(missing)} missing", file=sys.stderr)
        return False
    # Groups have other lengths in every batch, for which their attention would be compiled again.
    register(torch.compiler.disable)
    layers: nn.ModuleList = lm.base_model.layers  # type: ignore[assignment]
    for layer in layers:
        layer.compile()
    return True
