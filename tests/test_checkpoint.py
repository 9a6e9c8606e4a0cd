import errno

import pytest
import torch

from lhrm_train import checkpoint
from lhrm_train.checkpoint import is_checkpoint, load_state, save_checkpoint, save_state, stage_manifest
from lhrm_train.config import BaseConfig
from lhrm_train.format import Manifest
from lhrm_train.nano import build_base


class DiskFullError(OSError):
    def __init__(self):
        super().__init__(errno.ENOSPC, "No space left on device")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "base"
    build_base(path, BaseConfig(name="tiny", hidden_size=32, layers=1, heads=2, intermediate_size=48), seed=0)
    return path


def test_a_full_disk_leaves_the_old_state(tmp_path, monkeypatch):
    save_state(tmp_path, {"step": 1})

    def full(state, path):
        path.write_bytes(b"half")
        raise DiskFullError

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(OSError, match="No space left"):
            save_state(tmp_path, {"step": 2})
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.STATE_NAME]
    assert load_state(tmp_path)["step"] == 1


def test_a_full_disk_leaves_the_old_checkpoint(base, tmp_path, monkeypatch):
    target = tmp_path / "checkpoint"
    lm = checkpoint.load_model(base)
    save_checkpoint(lm, stage_manifest(base, {"stage": "hft"}), base, target)

    def full(self, directory):
        raise DiskFullError

    with monkeypatch.context() as patch:
        patch.setattr(Manifest, "save", full)
        with pytest.raises(OSError, match="No space left"):
            save_checkpoint(lm, stage_manifest(base, {"stage": "hgpo"}), base, target)
        with pytest.raises(OSError, match="No space left"):
            save_checkpoint(lm, stage_manifest(base, {}), base, tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
    assert is_checkpoint(target)
    assert Manifest.load(target).recipe == {"stage": "hft"}


def test_a_stage_keeps_the_turn_markers_and_drops_the_evaluation(base):
    old = Manifest.load(base)
    Manifest(name=old.name, tags=old.tags, turn_start="<s>", evaluation={"hacc": 1.0}).save(base)
    fresh = stage_manifest(base, {"stage": "hft"})
    old.save(base)
    assert (fresh.turn_start, fresh.evaluation, fresh.recipe) == ("<s>", {}, {"stage": "hft"})
