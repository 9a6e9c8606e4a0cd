"""The command ``python -m lhrm_train.smol``: base, answers, data, calibrate, delta, build, perplexity, evaluate."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from lhrm_train.arguments import above_zero, at_least_one
from lhrm_train.format import Mode
from lhrm_train.smol.mixture import SEED

WORK = Path("runs/smol")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lhrm_train.smol", description=__doc__)
    parser.add_argument("--work", type=Path, default=WORK, help="folder of base, answers and data")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("base", help="download the base and make it hybrid-ready")
    for name in ("answers", "data", "prepare"):
        what = {"answers": "sample the base's answers", "data": "write all files", "prepare": "base, answers and data"}
        command = commands.add_parser(name, help=what[name])
        command.add_argument("--base", type=Path, help="checkpoint; default: base in the work folder")
        command.add_argument("--seed", type=int, default=SEED)
        if name != "data":
            command.add_argument("--samples", type=at_least_one, default=8, help="answers sampled per everyday prompt")
            command.add_argument("--batch", type=at_least_one, help="sampled at once; default: 64, on a GPU 1024")
        if name != "answers":
            command.add_argument("--scale", type=above_zero, default=1.0, help="factor on the number of questions")
    calibrate = commands.add_parser("calibrate", help="write the savings calibration into a trained checkpoint")
    calibrate.add_argument("--model", type=Path, required=True, help="trained checkpoint, before its delta is made")
    calibrate.add_argument("--out", type=Path, help="raw rows; default: calibration in the work folder")
    delta = commands.add_parser("delta", help="make the committed delta of a trained checkpoint")
    delta.add_argument("--base", type=Path, help="what the delta is applied to; default: base in the work folder")
    delta.add_argument("--trained", type=Path, required=True, help="trained checkpoint")
    delta.add_argument("--out", type=Path, default=Path("models/lhrm-smol/delta"))
    delta.add_argument("--rank", type=at_least_one, default=128, help="of the factors of every matrix")
    build = commands.add_parser("build", help="make the model from base and delta")
    build.add_argument("--target", type=Path, default=Path("models/lhrm-smol"))
    measure = commands.add_parser("perplexity", help="of a model on held-out answers of the base")
    measure.add_argument("--model", type=Path, required=True)
    measure.add_argument("--data", type=Path, help="default: data/held-out-answers.jsonl in the work folder")
    measure.add_argument("--plain", action="store_true", help="without an opening tag, for the base itself")
    measure.add_argument("--system", action="store_true", help="behind the system message of the base's answers")
    evaluate = commands.add_parser("evaluate", help="measure a model and write its card; goes on if stopped")
    evaluate.add_argument("--model", type=Path, default=Path("models/lhrm-smol"))
    evaluate.add_argument("--out", type=Path, help="raw rows; default: evaluation in the work folder")
    evaluate.add_argument("--gym", type=at_least_one, default=40, help="questions of each reasoning-gym task")
    evaluate.add_argument("--run", type=Path, help="folder of the run that trained it, for the card")
    for command in (calibrate, evaluate):
        command.add_argument("--set", action="append", default=[], metavar="A.B=VALUE", help="override one setting")
    return parser


def _base(arguments: argparse.Namespace) -> Path:
    from lhrm_train.smol.build import make_base

    given: Path | None = getattr(arguments, "base", None)
    return given or make_base(arguments.work)


def _answers(arguments: argparse.Namespace, base: Path) -> str:
    import torch

    from lhrm_train.format import Manifest
    from lhrm_train.smol.answers import Sampling, sample_answers

    sampling = Sampling(Manifest.load(base).base_model or "", samples=arguments.samples, seed=arguments.seed)
    out = arguments.work / "answers.jsonl"
    batch = arguments.batch or (1024 if torch.cuda.is_available() else 64)
    total = sample_answers(base, out, sampling, chunk=max(16, batch // arguments.samples), batch=batch)
    return f"answers={out} " + " ".join(f"{name}={count}" for name, count in sorted(total.items()))


def _data(arguments: argparse.Namespace, base: Path) -> str:
    from lhrm_train.format import ChatTokenizer
    from lhrm_train.smol.data import write_data
    from lhrm_train.smol.table import data_table, total_tokens

    out, tokenizer = arguments.work / "data", ChatTokenizer.load(base)
    made = write_data(out, arguments.work / "answers.jsonl", arguments.seed, arguments.scale)
    return f"{data_table(made, tokenizer)}\n\ndata={out} hft_tokens={total_tokens(made['hft'], tokenizer)}"


def _calibrate(arguments: argparse.Namespace) -> str:
    from lhrm_train.manifest_settings import config_for
    from lhrm_train.smol.calibration import calibrate_smol

    out = arguments.out or arguments.work / "calibration"
    config = config_for(arguments.model, None, arguments.set)
    made = calibrate_smol(arguments.model, arguments.work / "data", out, config)
    return f"calibration={out} " + (f"prompts={made.prompts} ranges={len(made.bins)}" if made else "ranges=0")


def _delta(arguments: argparse.Namespace) -> str:
    from lhrm_train.format import Manifest
    from lhrm_train.smol.delta import make_delta

    if Manifest.load(arguments.trained).savings_calibration is None:
        print(f"{arguments.trained} is not calibrated: its model will state no saving", file=sys.stderr)
    figures = make_delta(_base(arguments), arguments.trained, arguments.out, arguments.rank)
    return f"delta={arguments.out} " + " ".join(f"{name}={value:.6g}" for name, value in figures.items())


def _build(arguments: argparse.Namespace) -> str:
    from lhrm_train.smol.build import build

    return build(arguments.target, arguments.work)


def _perplexity(arguments: argparse.Namespace) -> str:
    from lhrm_train.smol.answers import SYSTEM
    from lhrm_train.smol.perplexity import perplexity

    data = arguments.data or arguments.work / "data" / "held-out-answers.jsonl"
    mode = None if arguments.plain else Mode.NO_THINK
    value, tokens = perplexity(arguments.model, data, mode, system=SYSTEM if arguments.system else "")
    return f"perplexity={value:.4f} tokens={tokens}"


def _evaluate(arguments: argparse.Namespace) -> str:
    from lhrm_train.manifest_settings import config_for
    from lhrm_train.smol.card import write_card
    from lhrm_train.smol.evaluation import measure_smol
    from lhrm_train.smol.training import Run

    out = arguments.out or arguments.work / "evaluation"
    config = config_for(arguments.model, None, arguments.set)
    data = arguments.work / "data"
    # Before hours of measuring: a run of another model is refused.
    run = Run.of(arguments.run, arguments.model, data) if arguments.run else None
    measure_smol(arguments.model, _base(arguments), data, out, config, arguments.gym)
    return write_card(out, arguments.model, data, run)


def _prepare(arguments: argparse.Namespace) -> str:
    from lhrm_train.smol.data import require_packages

    require_packages()  # before half an hour of sampling
    base = _base(arguments)
    return f"{_answers(arguments, base)}\n{_data(arguments, base)}"


COMMANDS: dict[str, Callable[[argparse.Namespace], str]] = {
    "base": lambda arguments: f"base={_base(arguments)}",
    "answers": lambda arguments: _answers(arguments, _base(arguments)),
    "data": lambda arguments: _data(arguments, _base(arguments)),
    "prepare": _prepare,
    "calibrate": _calibrate,
    "delta": _delta,
    "build": _build,
    "perplexity": _perplexity,
    "evaluate": _evaluate,
}


def main() -> int:
    """Run the command line; returns the exit status."""
    from lhrm_train.allocator import set_allocator

    arguments = _parser().parse_args()
    set_allocator("lhrm_train.smol", large_vocabulary=True)
    from lhrm_train.errors import USER_ERRORS
    from lhrm_train.smol.answers import AnswersError
    from lhrm_train.smol.build import BuildError
    from lhrm_train.smol.delta import DeltaError
    from lhrm_train.smol.items import ItemError

    expected: tuple[type[Exception], ...] = (*USER_ERRORS, BuildError, DeltaError, AnswersError, ItemError, OSError)

    try:
        print(COMMANDS[arguments.command](arguments))
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    except expected as exc:
        print(f"lhrm-smol: {' '.join(str(exc).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
