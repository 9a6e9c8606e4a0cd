"""Holding back and passing on the stderr of forked children."""

import os
import time

from lhrm_server.engine_output import EngineOutput


def fork_and_write(*lines: str) -> int:
    pid = os.fork()
    if pid == 0:
        os.write(2, "".join(f"{line}\n" for line in lines).encode())
        os._exit(0)
    return pid


def test_a_held_failure_is_told_by_its_last_exception(capfd):
    output = EngineOutput(hold=True)
    with output.of_forked_children():
        pid = fork_and_write("(EngineCore pid=1) ERROR [x] KeyError: 'early'", "ValueError: no memory", "goodbye")
    os.waitpid(pid, 0)
    assert output.cause() == "ValueError: no memory"
    assert capfd.readouterr().err == ""


def test_without_an_exception_there_is_no_cause():
    output = EngineOutput(hold=True)
    assert output.cause() is None
    with output.of_forked_children():
        pid = fork_and_write("all is well")
    os.waitpid(pid, 0)
    assert output.cause() is None


def test_after_release_lines_are_passed_on(capsys):
    output = EngineOutput(hold=True)
    with output.of_forked_children():
        output.release()
        pid = fork_and_write("RuntimeError: while serving")
    os.waitpid(pid, 0)
    deadline, seen = time.monotonic() + 5, ""
    while "while serving" not in seen and time.monotonic() < deadline:
        seen += capsys.readouterr().err
        time.sleep(0.01)
    assert seen == "RuntimeError: while serving\n"
    assert output.cause() is None


def test_children_forked_outside_the_block_keep_their_stderr(capfd):
    output = EngineOutput(hold=True)
    with output.of_forked_children():
        pass
    os.waitpid(fork_and_write("mine"), 0)
    assert capfd.readouterr().err == "mine\n"
