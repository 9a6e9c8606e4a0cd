"""Forked children end with their parent, and only those forked inside the block."""

import os
import signal
import subprocess
import sys
import time

import pytest
from process_tree import alive, gone

PARENT = """
import os, sys, time
from contextlib import nullcontext
from lhrm_server.parent_death import children_die_with_this_process
with children_die_with_this_process() if {leashed} else nullcontext():
    child = os.fork()
if child == 0:
    time.sleep(60)
    os._exit(0)
print(child, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("leashed", [True, False])
def test_a_child_dies_with_its_parent_only_on_the_leash(leashed: bool):
    parent = subprocess.Popen([sys.executable, "-c", PARENT.format(leashed=leashed)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline().split()[0])
    parent.stdout.close()
    assert alive(child)
    parent.kill()
    parent.wait()
    try:
        assert gone(child, within_s=10 if leashed else 0.5) is leashed
    finally:
        if alive(child):
            os.kill(child, signal.SIGKILL)


def test_a_leashed_child_is_out_of_reach_of_the_terminals_ctrl_c():
    parent = subprocess.Popen([sys.executable, "-c", PARENT.format(leashed=True)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline().split()[0])
    parent.stdout.close()
    try:
        # The child sets its own group, which may be after its parent has printed its id.
        deadline = time.monotonic() + 10
        while os.getpgid(child) != child and time.monotonic() < deadline:
            time.sleep(0.01)
        assert os.getpgid(child) == child != os.getpgid(parent.pid)
    finally:
        parent.kill()
        parent.wait()
    assert gone(child)
