from __future__ import annotations

import socket
import threading
from queue import SimpleQueue

import pytest

from dbjobq.cli.serving.lifeline import Lifeline
from tests.cli.support import TIMEOUT


def test_it_says_ready() -> None:
    parent, child = socket.socketpair()
    with parent, child:
        Lifeline(child).ready()
        assert parent.recv(1) == b"r"


@pytest.mark.parametrize("listens", [True, False])
def test_it_tells_when_the_parent_is_gone_whether_or_not_it_had_listened(listens: bool) -> None:
    parent, child = socket.socketpair()
    cut = threading.Event()
    with parent, child:
        lifeline = Lifeline(child)
        lifeline.listen(on_stop=lambda: None, on_cut=cut.set)
        lifeline.ready()
        if listens:
            parent.recv(1)
        parent.close()
        assert cut.wait(TIMEOUT)


def test_each_word_of_the_parent_counts() -> None:
    parent, child = socket.socketpair()
    words = SimpleQueue[str]()
    with parent, child:
        Lifeline(child).listen(on_stop=lambda: words.put("stop"), on_cut=lambda: words.put("cut"))
        parent.sendall(b"ss")
        assert [words.get(timeout=TIMEOUT) for _ in range(2)] == ["stop", "stop"]
        parent.close()
        assert words.get(timeout=TIMEOUT) == "cut"


def test_ready_may_come_too_late() -> None:
    parent, child = socket.socketpair()
    parent.close()
    with child:
        Lifeline(child).ready()
