"""The loop around a trainer's steps: progress, curves, saved states, and a clean stop between two steps."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Protocol

from accelerate import Accelerator
from tqdm import tqdm

from lhrm_train.devices import total
from lhrm_train.metrics import MetricsLog
from lhrm_train.stop import InterruptedRunError, StopSignals


class Trainer(Protocol):
    """What both stages offer; `done` counts the steps taken."""

    accelerator: Accelerator
    done: int

    @property
    def failures(self) -> Counter[str]:
        """Failures of scorers so far, by exception."""
        ...

    def step(self) -> dict[str, float]:
        """Take one step and return its metrics."""
        ...

    def save(self, directory: Path) -> None:
        """Write the training state."""
        ...

    def restore(self, directory: Path) -> None:
        """Continue from a saved state, if there is one."""
        ...


def take_steps(trainer: Trainer, name: str, steps: int, save_every: int, out: Path, shown: tuple[str, ...]) -> None:
    """Restore the state in `out`, take the remaining steps of `steps` and save; `shown` are metrics beside the bar.

    Raises InterruptedRunError after saving when asked to stop.
    """
    state = out / "state"
    trainer.restore(state)
    main = trainer.accelerator.is_main_process
    failures = 0
    bar = tqdm(total=steps, initial=trainer.done, desc=name, unit="step", mininterval=5, disable=not main)
    with bar, StopSignals() as stop, MetricsLog(out, trainer.done, active=main) as log:
        while trainer.done < steps:
            row = trainer.step()
            log.write(row)
            bar.update()
            bar.set_postfix({metric: f"{row[metric]:.3f}" for metric in shown}, refresh=False)
            if trainer.failures.total() > failures:
                failures = trainer.failures.total()
                bar.write(f"{name}: scorer failures so far, by exception: {dict(trainer.failures)}")
            # Asked of all processes, so that they stop at the same step.
            stopping = bool(total(trainer.accelerator, stop.requested))
            if stopping or trainer.done % save_every == 0 or trainer.done == steps:
                trainer.save(state)
            if stopping:
                raise InterruptedRunError(f"{name} stopped at step {trainer.done} of {steps}")
