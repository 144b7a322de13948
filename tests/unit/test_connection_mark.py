"""What a process starts on a node bears its mark, so that the next one waits for what a killed one left running."""

import multiprocessing

from tasks.hosts.connection import MARK, mark


def test_two_flows_forked_from_one_process_do_not_take_each_others_commands_for_their_own() -> None:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        child = pool.apply(mark)
    assert child.startswith(f"{MARK}=")
    assert child != mark()


def test_a_process_keeps_its_mark() -> None:
    assert mark() == mark()
