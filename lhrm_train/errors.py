"""The errors that a user can mend: the command prints them as one line instead of a traceback."""

from __future__ import annotations

from lhrm_train.config import ConfigError
from lhrm_train.format import FormatError
from lhrm_train.init import InitError
from lhrm_train.optim import NonFiniteLossError
from lhrm_train.samplers import SamplerError
from lhrm_train.sources import DataError

USER_ERRORS: tuple[type[Exception], ...] = (
    ConfigError,
    FormatError,
    InitError,
    DataError,
    NonFiniteLossError,
    SamplerError,
)
