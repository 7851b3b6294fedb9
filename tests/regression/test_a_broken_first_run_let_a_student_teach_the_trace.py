"""Where the solution could not be run to its end, the trace of what tests may expect learned from students."""

import pytest

from tito.errors import TitoError
from tito.grading.isolated import run as running


def test_what_a_student_sends_is_never_learned(monkeypatch):
    class Broken:
        def __init__(self, isolated, notebook, trace, seed):
            self.trace = trace

        def play(self):
            assert self.trace.learning, "a run of a student's notebook came first"
            raise TitoError("no sandbox can be started")

    monkeypatch.setattr(running, "_Run", Broken)
    isolated = running.Isolated.__new__(running.Isolated)
    isolated.source, isolated.trace = None, None
    for _ in range(2):
        with pytest.raises(TitoError):
            isolated.run("a student's notebook")
        assert isolated.trace is None
