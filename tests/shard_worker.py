"""Run under torchrun: both trainers for a few steps, saved and restored on the way. Arguments: base, out, shard."""

import sys
from collections import Counter
from pathlib import Path

from lhrm_train.checkpoint import save_checkpoint, stage_manifest
from lhrm_train.config import HFTConfig, HGPOConfig, RewardConfig
from lhrm_train.devices import accelerator
from lhrm_train.format import ChatTokenizer
from lhrm_train.metrics import MetricsLog
from lhrm_train.rewards.judge import Judged
from lhrm_train.suite.stream import SuiteDemonstrations, SuiteProblems
from lhrm_train.train_hft import HFTTrainer
from lhrm_train.train_hgpo import HGPOTrainer


class ParityJudge:
    """Scores a completion by the sum of its ids, even or odd, so that groups are mixed."""

    def __init__(self):
        self.failures = Counter()

    def judge(self, problem, mode, ids):
        right = float(sum(ids) % 2)
        return Judged(right, "", len(ids), 0, len(ids), True, False, True, 0, False, False)


def hft_trainer(base, shard):
    config = HFTConfig(steps=4, rows=4, muon_lr=0, shard=shard)
    return HFTTrainer(base, config, SuiteDemonstrations(ChatTokenizer.load(base), config, 0), 0)


def hgpo_trainer(base, shard):
    # Three prompts on one process, two on the other, and rows for about one prompt each: unequal micro-batches.
    config = HGPOConfig(
        steps=4,
        prompts=5,
        max_new_tokens=6,
        minibatches=1,
        micro_rows=1,
        row_length=160,
        refresh_reference_every=2,
        shard=shard,
    )
    trainer = HGPOTrainer(base, config, RewardConfig(), SuiteProblems(0), 0)
    trainer.judge = ParityJudge()
    return trainer


def main(base, out, shard):
    main_process = accelerator().is_main_process
    for name, make in (("hft", hft_trainer), ("hgpo", hgpo_trainer)):
        trainer = make(base, shard)
        with MetricsLog(out / name, 0, active=main_process) as log:
            for _ in range(3):
                log.write(trainer.step())
            trainer.save(out / name / "state")
            trainer.accelerator.wait_for_everyone()
            again = make(base, shard)
            again.restore(out / name / "state")
            log.write(again.step())
        merged = again.policy.merged()
        if main_process:
            save_checkpoint(merged, stage_manifest(base, {}), base, out / name / "checkpoint")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "shard")
