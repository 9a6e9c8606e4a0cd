"""The committed delta: what training changed, small enough for a repository, checked when it is made and applied.

`delta.json` names the base with a digest of its weights, the trained checkpoint by one, the files with their checksums,
and logits that the merged model must give; beside it lie safetensors files. No file has more than `LARGEST_FILE` bytes,
and all together no more than `LARGEST_DELTA`. Per parameter of the model they hold
  NAME.up (rows, rank), NAME.down (rank, columns), both int8, and NAME.scale (rank,), fp32: the factors of trained minus
    base, which is up times the diagonal of scale times down;
  NAME.value: the trained value itself, of a vector such as a norm's weight;
  NAME.rows (n, columns) and NAME.ids (n,): trained rows of tags, turn markers and padding.
A parameter without any of them is the base's. Low-rank adapters of rank r are represented up to rounding by factors
of rank r; other training is approximated, and `kept` says how well. Eight bits leave room for twice the rank that bf16
would: what HGPO adds to HFT is small, so that a low rank cuts it off first.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from lhrm_train.atomic import replace_directory, write_json
from lhrm_train.checkpoint import load_model, save_checkpoint
from lhrm_train.digest import weights_digest
from lhrm_train.format import MANIFEST_NAME, ChatTokenizer, Manifest, Message, Mode, encode_chat

FORMAT = 2
NAME = "delta.json"
NEEDED = ("base", "base_weights", "trained_weights", "manifest", "checks")
LARGEST_FILE, LARGEST_DELTA = 15_000_000, 45_000_000  # bytes
RANK, WORD_RANK = 128, 16  # of the factors; of those of the embedding, beside the rows that are stored whole
# Upper bounds of what safetensors writes beside the numbers: per file, and per tensor beside its name.
FILE_HEADER, TENSOR_HEADER = 64, 128  # bytes
LOGIT_TOLERANCE = 0.05
TOP = 5  # logits kept per check
LARGEST_INT8 = 127
CHECKS = (
    ("Hello!", Mode.NO_THINK),
    ("What is 17 * 6?", Mode.THINK),
    ("Name three fruits.", Mode.NO_THINK),
    ("Ann is taller than Bob. Who is taller?", None),
)


class DeltaError(ValueError):
    """A delta that cannot be made, is damaged, or does not fit its base."""


@dataclass(frozen=True)
class Check:
    """The largest logits of the merged model, fp32, behind one prompt: [id, logit], largest first."""

    prompt: str
    mode: str | None
    top: list[list[float]]


def make_delta(base: Path, trained: Path, out: Path, rank: int = RANK, word_rank: int = WORD_RANK) -> dict[str, float]:
    """Write the delta from `base` to `trained`, both checkpoints, to `out`; complete or not at all.

    Returns `kept`, the share of the squared change that the factors hold, `bytes`, the size of all files, and
    `logit_gap`, the largest difference of a checked logit between the trained and the merged model. Raises DeltaError
    when the two differ in vocabulary or shape, a value is not finite, or a file or all of them are too large.
    """
    _same_vocabulary(base, trained)
    before, after = load_model(base), load_model(trained)
    weights = base_digest(before, base)
    tensors, kept = _difference(before, after, _special_ids(trained), rank, word_rank)
    tokenizer = ChatTokenizer.load(trained)
    wanted = logits_of(after, tokenizer)
    _merge(before, tensors)
    _round(before)
    merged = logits_of(before, tokenizer)
    about = {
        "format": FORMAT,
        "base": Manifest.load(base).base_model,
        "base_weights": weights,
        "trained_weights": weights_digest(trained),
        "kept": kept,
        "manifest": json.loads((trained / MANIFEST_NAME).read_text(encoding="utf-8")),
        "checks": [asdict(check) for check in _checks(merged)],
    }
    replace_directory(out, lambda fresh: _write(fresh, tensors, about))
    gap = max(float((a - b).abs().max()) for a, b in zip(wanted, merged, strict=True))
    size = sum(path.stat().st_size for path in out.iterdir())
    return {"kept": kept, "bytes": float(size), "logit_gap": gap}


def apply_delta(base: Path, delta: Path, out: Path) -> float:
    """Write the merged checkpoint to `out` and return the largest difference of a checked logit.

    Raises DeltaError when a file is missing or damaged, the base is another one by its name or its weights, or a logit
    is off by more than `LOGIT_TOLERANCE`.
    """
    about, tensors = read_delta(delta)
    if about["base"] != Manifest.load(base).base_model:
        raise DeltaError(f"{delta}: is for the base {about['base']!r}, not {Manifest.load(base).base_model!r}")
    model = load_model(base)
    if (weights := base_digest(model, base)) != (wanted := about["base_weights"]):
        raise DeltaError(f"{base}: the digest of its weights is {weights}, not {wanted}; {delta} is for another base")
    _merge(model, tensors)
    _round(model)
    gap = _largest_gap(model, ChatTokenizer.load(base), about["checks"])
    if not gap <= LOGIT_TOLERANCE:
        raise DeltaError(f"{delta}: a logit of the merged model is {gap:.3g} off, more than {LOGIT_TOLERANCE}")
    save_checkpoint(model, _manifest(base, about["manifest"]), base, out)
    return gap


def read_delta(delta: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what `delta.json` says and all tensors. Raises DeltaError for a missing or damaged file."""
    path = delta / NAME
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        listed = [(entry["name"], entry["sha256"]) for entry in about["files"]]
        version = about["format"]
        if missing := [name for name in NEEDED if name not in about]:
            raise KeyError(missing[0])
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise DeltaError(f"{path}: cannot be read: {exc!r}") from exc
    if version != FORMAT:
        raise DeltaError(f"{path}: format = {version!r}: {FORMAT} is the one known here")
    tensors: dict[str, Tensor] = {}
    for name, digest in listed:
        file = delta / name
        if not file.is_file() or sha256_of(file) != digest:
            raise DeltaError(f"{file}: is missing, or its sha256 is not {digest}")
        tensors |= load_file(file)
    return about, tensors


def trained_digest(model: Path) -> str:
    """Return the digest of the checkpoint that `model` was made of by its delta; without a delta, its own.

    Raises DeltaError for a damaged delta.
    """
    if not (model / "delta" / NAME).is_file():
        return weights_digest(model)
    about, _ = read_delta(model / "delta")
    return str(about["trained_weights"])


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def base_digest(model: PreTrainedModel, checkpoint: Path) -> str:
    """Return 16 hexadecimal digits of the weights, which are bf16, that the published base brought along.

    The rows of added tokens, and those that pad a matrix, are left out: `init_base` computes them, and another CPU
    rounds them otherwise. The merged model has those of the delta, or never uses them.
    """
    spec = json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))
    added = {token["id"] for token in spec["added_tokens"]}
    known = [index for index in spec["model"]["vocab"].values() if index not in added]
    words = _word_matrices(model)
    digest = hashlib.blake2b(digest_size=8)
    for name, parameter in sorted(model.named_parameters()):
        value = parameter.detach()[sorted(known)] if parameter.data_ptr() in words else parameter.detach()
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.to(torch.bfloat16).contiguous().view(torch.int16).numpy().data)
    return digest.hexdigest()


@torch.inference_mode()
def logits_of(model: PreTrainedModel, tokenizer: ChatTokenizer) -> list[Tensor]:
    """Return the logits (V,) behind each prompt of `CHECKS`, of a model in fp32."""
    model.eval()
    out = []
    for prompt, mode in CHECKS:
        ids = encode_chat(tokenizer, (Message("user", prompt),), mode)
        out.append(model(input_ids=torch.tensor([ids])).logits[0, -1].float())
    return out


def _checks(logits: Sequence[Tensor]) -> Iterator[Check]:
    for (prompt, mode), row in zip(CHECKS, logits, strict=True):
        values, ids = row.topk(TOP)
        top = [[float(index), round(value, 4)] for index, value in zip(ids.tolist(), values.tolist(), strict=True)]
        yield Check(prompt, mode.value if mode else None, top)


def _largest_gap(model: PreTrainedModel, tokenizer: ChatTokenizer, checks: Sequence[Mapping[str, Any]]) -> float:
    known = [(check["prompt"], check["mode"]) for check in checks]
    if known != [(prompt, mode.value if mode else None) for prompt, mode in CHECKS]:
        raise DeltaError(f"checks = {known}: not the prompts known here")
    gaps: list[float] = [
        abs(float(row[int(index)]) - value)
        for row, check in zip(logits_of(model, tokenizer), checks, strict=True)
        for index, value in check["top"]
    ]
    return max(gaps)


def _same_vocabulary(base: Path, trained: Path) -> None:
    old, new = ChatTokenizer.load(base), ChatTokenizer.load(trained)
    if old.tags != new.tags or (base / "tokenizer.json").read_bytes() != (trained / "tokenizer.json").read_bytes():
        raise DeltaError(f"{trained}: has another tokenizer than {base}, so it was not trained from there")


def _special_ids(checkpoint: Path) -> list[int]:
    chat = ChatTokenizer.load(checkpoint)
    marks = chat.encode_template(chat.manifest.turn_start + chat.manifest.turn_end)
    return sorted({*astuple(chat.tags), *marks})


def _word_matrices(model: PreTrainedModel) -> set[int]:
    """Return the addresses of the matrices with one row per token."""
    embedding: Any = model.get_input_embeddings()
    head: Any = model.get_output_embeddings()
    return {embedding.weight.data_ptr(), head.weight.data_ptr()}


@torch.no_grad()
def _difference(
    before: PreTrainedModel, after: PreTrainedModel, special: Sequence[int], rank: int, word_rank: int
) -> tuple[dict[str, Tensor], float]:
    """Return the delta's tensors and the share of the squared change of matrices that they hold."""
    tensors: dict[str, Tensor] = {}
    words, whole, lost = _word_matrices(after), 0.0, 0.0
    old = dict(before.named_parameters())
    new = dict(after.named_parameters())
    if {name: p.shape for name, p in old.items()} != {name: p.shape for name, p in new.items()}:
        raise DeltaError("base and trained model have other parameters, or of other shapes")
    for name, value in new.items():
        change = value - old[name]
        if not change.isfinite().all():
            raise DeltaError(f"{name}: the trained checkpoint holds values that are not finite")
        if not change.any():
            continue
        if value.ndim < 2:
            tensors[f"{name}.value"] = value.to(torch.bfloat16)
            continue
        if is_words := value.data_ptr() in words:
            tensors[f"{name}.ids"] = torch.tensor(special, dtype=torch.int32)
            tensors[f"{name}.rows"] = value[special].to(torch.bfloat16)
            change[special] = 0.0
        factors = _factors(change, word_rank if is_words else rank)
        whole += float(change.square().sum())
        lost += float((change - factors.product()).square().sum())
        if factors.up.numel():
            tensors |= {f"{name}.{part}": value for part, value in vars(factors).items()}
    return tensors, 1.0 - lost / whole if whole else 1.0


@dataclass(frozen=True)
class _Factors:
    """`up` (rows, k) and `down` (k, columns) in int8, `scale` (k,) in fp32."""

    up: Tensor
    down: Tensor
    scale: Tensor

    def product(self) -> Tensor:
        """Return the matrix (rows, columns) in fp32."""
        return (self.up.float() * self.scale) @ self.down.float()


def _factors(change: Tensor, rank: int) -> _Factors:
    """Return factors of the best approximation with k <= rank. Directions below the rounding of bf16 are left out."""
    exact = change.double()
    wide = exact.shape[1] > exact.shape[0]
    tall = exact.T if wide else exact
    # The eigenvectors of a small square matrix, because an embedding has tens of thousands of rows.
    squares, right = torch.linalg.eigh(tall.T @ tall)
    order = squares.argsort(descending=True)[:rank]
    keep = order[squares[order] > squares.max().clamp_min(1e-30) * 1e-8]
    left, other = tall @ right[:, keep], right[:, keep].T
    up, down = (other.T, left.T) if wide else (left, other)
    # Each direction fills the eight bits of both its factors.
    up_high, down_high = (part.abs().amax(dim) / LARGEST_INT8 for part, dim in ((up, 0), (down, 1)))
    return _Factors(
        (up / up_high).round().to(torch.int8).contiguous(),
        (down / down_high[:, None]).round().to(torch.int8).contiguous(),
        (up_high * down_high).float(),
    )


@torch.no_grad()
def _merge(model: PreTrainedModel, tensors: Mapping[str, Tensor]) -> None:
    """Change `model`, which is in fp32, in place. Raises DeltaError for a tensor that does not fit."""
    parameters = dict(model.named_parameters())
    for name in sorted({key.rpartition(".")[0] for key in tensors}):
        if name not in parameters:
            raise DeltaError(f"{name}: the base has no such parameter")
        target = parameters[name]
        try:
            if f"{name}.value" in tensors:
                target.copy_(tensors[f"{name}.value"].float())
            if f"{name}.up" in tensors:
                target.add_(_Factors(*(tensors[f"{name}.{part}"] for part in ("up", "down", "scale"))).product())
            if f"{name}.rows" in tensors:
                target[tensors[f"{name}.ids"].long()] = tensors[f"{name}.rows"].float()
        except (RuntimeError, IndexError, KeyError) as exc:
            raise DeltaError(f"{name}: does not fit the base of shape {tuple(target.shape)}: {exc}") from exc


@torch.no_grad()
def _round(model: PreTrainedModel) -> None:
    """Round the weights in place to bf16, in which they are stored."""
    for parameter in model.parameters():
        parameter.copy_(parameter.to(torch.bfloat16))


def _write(fresh: Path, tensors: Mapping[str, Tensor], about: dict[str, Any]) -> None:
    files = []
    for number, part in enumerate(_parts(tensors), 1):
        path = fresh / f"delta-{number:02d}.safetensors"
        save_file(part, path)
        path.chmod(0o644)
        files.append({"name": path.name, "sha256": sha256_of(path), "bytes": path.stat().st_size})
    write_json(fresh / NAME, {**about, "files": files})
    _check_sizes(fresh)


def _check_sizes(folder: Path) -> None:
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    for name, size in sizes.items():
        if size > LARGEST_FILE:
            raise DeltaError(f"{name} has {size} bytes, at most {LARGEST_FILE} are allowed")
    if (total := sum(sizes.values())) > LARGEST_DELTA:
        raise DeltaError(f"the delta has {total} bytes, at most {LARGEST_DELTA} are allowed; lower its rank")


def _parts(tensors: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Yield the tensors in as many files as their size needs. Raises DeltaError for one that no file has room for."""
    part: dict[str, Tensor] = {}
    size = FILE_HEADER
    for name, tensor in tensors.items():
        need = tensor.numel() * tensor.element_size() + len(name) + TENSOR_HEADER
        if FILE_HEADER + need > LARGEST_FILE:
            raise DeltaError(f"{name} takes {need} bytes, at most {LARGEST_FILE} fit into a file; lower its rank")
        if size + need > LARGEST_FILE:
            yield part
            part, size = {}, FILE_HEADER
        part[name] = tensor
        size += need
    if part:
        yield part


def _manifest(base: Path, raw: Mapping[str, Any]) -> Manifest:
    """Return the trained checkpoint's manifest. Raises DeltaError where its tags are not those of `base`."""
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        write_json(Path(folder) / MANIFEST_NAME, raw)
        manifest = Manifest.load(folder)
    if manifest.tags != Manifest.load(base).tags:
        raise DeltaError(f"manifest: its tags {manifest.tags} are not those of the base")
    return manifest
