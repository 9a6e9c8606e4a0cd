"""Begin a run or go on with one that was stopped: prompts, plan and rows of one directory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from .arms import Arm
from .driver import Driver
from .errors import LoadTestError
from .grade import check_scorer, check_scorers
from .live import Live
from .plan import Block, plan
from .prompts import Prompt, digest, load_prompts, prompt_lines
from .rows import ROWS_NAME, Row, RowWriter, drop_cut_line, read_rows
from .run_info import PROMPTS_NAME, RUN_NAME, RunInfo, Servers, Settings, now, read_run, this_machine, write_run
from .runner import probe, remaining, run
from .slo import parse_slo
from .sources import tasks
from .terminal import console


@dataclass(frozen=True)
class About:
    """What a run's figures carry for the reader: the command, where the prompts come from, a note."""

    command: str
    source: str
    note: str | None = None


def begin(directory: Path, settings: Settings, prompts: Sequence[Prompt], about: About) -> None:
    """Make all requests of a run, with its rows in `directory`. Raises LoadTestError.

    Nothing is written before every arm has answered one unmeasured question: until then a killed run leaves nothing
    that another would have to go around.
    """
    blocks = plan(prompts, settings.design)
    check_scorers(prompts)
    for text in settings.slos:
        parse_slo(text)

    _claim(directory)

    def start(servers: Servers) -> RowWriter:
        with ExitStack() as undo:
            # First the file that only one of two runs can make; with run.json, the last one, the run can be resumed.
            rows = undo.enter_context(RowWriter(directory))
            with _writing(directory):
                (directory / PROMPTS_NAME).write_text(prompt_lines(prompts), encoding="utf-8")
                write_run(directory, _info(settings, prompts, about, servers))
            undo.pop_all()
        return rows

    asyncio.run(_measure(settings, blocks, [], 0, start))


@contextmanager
def _writing(directory: Path) -> Iterator[None]:
    """Turn an OSError of the block into a LoadTestError."""
    try:
        yield
    except OSError as exc:
        raise LoadTestError(f"cannot write to {directory}: {exc}") from exc


def _claim(directory: Path) -> None:
    """Make the directory of a new run. Raises LoadTestError for that of another run."""
    for path in (directory / RUN_NAME, directory / ROWS_NAME):
        if path.exists() and path.stat().st_size:
            raise LoadTestError(f"{path} exists: choose another --out, or resume {directory}")
    with _writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        (directory / ROWS_NAME).unlink(missing_ok=True)


def resume(directory: Path, retry_errors: bool = False, arms: tuple[Arm, ...] | None = None) -> None:
    """Make the requests that a stopped run did not, and with `retry_errors` those that failed.

    `arms` tells where the same arms are now.

    Raises LoadTestError when there is nothing to go on with.
    """
    info = read_run(directory)
    if info is None:
        raise LoadTestError(f"{directory} has no run.json: there is no run to go on with")
    prompts = load_prompts(directory / PROMPTS_NAME, check_scorer)
    if digest(prompts) != info.prompts_sha256:
        raise LoadTestError(f"{directory / PROMPTS_NAME} is not what the run began with")
    settings = info.settings.model_copy(update={"arms": arms or info.settings.arms})
    with _writing(directory):
        drop_cut_line(directory)
    path = directory / ROWS_NAME
    done = read_rows(directory) if path.is_file() and path.stat().st_size else []
    kept = [row for row in done if row.error is None] if retry_errors else done
    blocks = remaining(plan(prompts, settings.design), {row.position for row in kept})
    if not blocks:
        return

    def start(servers: Servers) -> RowWriter:
        told = {"servers": servers, "earlier_servers": (*info.earlier_servers, info.servers)}
        changed = {**told, "sessions": (*info.sessions, now()), "settings": settings}
        with _writing(directory):
            write_run(directory, info.model_copy(update=changed))
        return RowWriter(directory, resume=True)

    session = 1 + max((row.session for row in done), default=-1)
    asyncio.run(_measure(settings, blocks, kept, session, start))


def _info(settings: Settings, prompts: Sequence[Prompt], about: About, servers: Servers) -> RunInfo:
    return RunInfo(
        command=about.command,
        source=about.source,
        prompts=len(prompts),
        prompts_sha256=digest(prompts),
        mix=tasks(prompts),
        settings=settings,
        sessions=(now(),),
        servers=servers,
        earlier_servers=(),
        note=about.note,
        **this_machine(),
    )


async def _measure(
    settings: Settings,
    blocks: Sequence[Block],
    done: Sequence[Row],
    session: int,
    start: Callable[[Servers], RowWriter],
) -> None:
    total = len(done) + sum(len(block.jobs) for block in blocks)
    async with Driver({arm.name: arm for arm in settings.arms}, settings.sampling) as driver:
        servers = await driver.settle()
        await probe(driver, settings.arms)
        names = [arm.name for arm in settings.arms]
        with start(servers) as writer, Live(total, names, done, console(stderr=True)) as live:

            def on_row(row: Row) -> None:
                writer.write(row)
                live.add(row)

            await run(driver, blocks, settings.arms, session, on_row)
