"""Records as files, and chat turns to put into them."""

import json
from pathlib import Path

from lhrm_train.config import DataConfig


def user(content):
    return {"role": "user", "content": content}


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


def write(path: Path, *rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def config(*files: str, **more) -> DataConfig:
    return DataConfig(source="jsonl", files=files, **more)
