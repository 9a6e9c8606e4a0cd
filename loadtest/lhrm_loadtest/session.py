"""Begin a run or go on with one that was stopped: prompts, plan and rows of one directory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from .arms import Arm
from .driver import Driver
from .errors import LoadTestError
from .grade import check_scorers
from .live import Live
from .plan import Block, plan
from .prompts import Prompt, digest, load_prompts, prompt_lines
from .rows import ROWS_NAME, Row, RowWriter, drop_cut_line, read_rows
from .run_info import PROMPTS_NAME, RunInfo, Settings, now, read_run, this_machine, write_run
from .runner import probe, remaining, run
from .slo import parse_slo
from .sources import tasks
from .terminal import console

Servers = dict[str, dict[str, JsonValue]]


@dataclass(frozen=True)
class About:
    """What a run's figures carry for the reader: the command, where the prompts come from, a note."""

    command: str
    source: str
    note: str | None = None


def begin(directory: Path, settings: Settings, prompts: Sequence[Prompt], about: About) -> None:
    """Make all requests of a run, with its rows in `directory`. Raises LoadTestError.

    Nothing is written before every arm has answered one unmeasured question.
    """
    blocks = plan(prompts, settings.design)
    check_scorers(prompts)
    for text in settings.slos:
        parse_slo(text)

    def describe(servers: Servers) -> None:
        (directory / PROMPTS_NAME).write_text(prompt_lines(prompts), encoding="utf-8")
        write_run(directory, _info(settings, prompts, about, servers))

    with RowWriter(directory) as writer:
        asyncio.run(_measure(settings, blocks, [], 0, writer, describe))


def resume(directory: Path, retry_errors: bool = False, arms: tuple[Arm, ...] | None = None) -> None:
    """Make the requests that a stopped run did not, and with `retry_errors` those that failed.

    `arms` tells where the same arms are now.

    Raises LoadTestError when there is nothing to go on with.
    """
    info = read_run(directory)
    if info is None:
        raise LoadTestError(f"{directory} has no run.json: there is no run to go on with")
    prompts = load_prompts(directory / PROMPTS_NAME)
    if digest(prompts) != info.prompts_sha256:
        raise LoadTestError(f"{directory / PROMPTS_NAME} is not what the run began with")
    check_scorers(prompts)
    settings = info.settings.model_copy(update={"arms": arms or info.settings.arms})
    drop_cut_line(directory)
    done = read_rows(directory) if (directory / ROWS_NAME).is_file() else []
    kept = [row for row in done if row.error is None] if retry_errors else done
    blocks = remaining(plan(prompts, settings.design), {row.position for row in kept})
    if not blocks:
        return

    def describe(servers: Servers) -> None:
        sessions = (*info.sessions, now())
        write_run(directory, info.model_copy(update={"sessions": sessions, "servers": servers, "settings": settings}))

    with RowWriter(directory, resume=True) as writer:
        session = 1 + max((row.session for row in done), default=-1)
        asyncio.run(_measure(settings, blocks, kept, session, writer, describe))


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
        note=about.note,
        **this_machine(),
    )


async def _measure(
    settings: Settings,
    blocks: Sequence[Block],
    done: Sequence[Row],
    session: int,
    writer: RowWriter,
    describe: Callable[[Servers], None],
) -> None:
    total = len(done) + sum(len(block.jobs) for block in blocks)
    async with Driver({arm.name: arm for arm in settings.arms}, settings.sampling) as driver:
        servers = await driver.settle()
        await probe(driver, settings.arms)
        describe(servers)
        with Live(total, [arm.name for arm in settings.arms], done, console(stderr=True)) as live:

            def on_row(row: Row) -> None:
                writer.write(row)
                live.add(row)

            await run(driver, blocks, settings.arms, session, on_row)
