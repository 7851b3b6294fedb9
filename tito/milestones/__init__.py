"""The milestones: small programs that retell the field's history on the student's own package.

A program needs one thing of this:

>>> from tito.milestones import begin
>>> run = begin(__file__, parser)

It refuses, in words, if a module or data set is missing; from then on ``run`` keeps what is measured. The catalogue
of milestones is the folders with their ``milestone.yaml``.
"""

from __future__ import annotations

from tito.milestones.run import Run, at_least, begin

__all__ = ["Run", "at_least", "begin"]
