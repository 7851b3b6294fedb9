"""``tito audit``: good tests pass it, weak ones are shown the mistakes and the students that they let through."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from tito.audit.mutants import mutants

RunTito = Callable[..., "subprocess.CompletedProcess[str]"]
EXERCISE = """
import numpy as np

def total(ids, rows):
    axis = outside(1)
    ### BEGIN SOLUTION
    found = np.zeros(3)
    np.add.at(found, ids, rows.sum(axis=0, keepdims=True))
    return found[1:] if len(ids) > 2 else -found
    ### END SOLUTION
"""


# what nothing in the tiny course can tell from the solution
CUT_OFF = {
    "module": "02_tensor",
    "exercise": "tensor-add",
    "before": "return Tensor(added_values)",
    "after": "return Tensor(Tensor(added_values).data)",
    "reason": "the tiny course has no gradients",
}


def list_equivalent(root: Path, *entries: dict[str, str]) -> None:
    (root / "tests" / "equivalent_mutants.yaml").write_text(json.dumps(entries), encoding="utf-8")


def edit(root: Path, old: str, new: str) -> None:
    path = root / "modules" / "02_tensor" / "tensor_dev.py"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_mutants_are_small_and_inside_the_solution() -> None:
    made = {mutant.after: mutant for mutant in mutants(EXERCISE)}
    for after in (
        "np.add.at(found, ids, rows.sum(axis=1, keepdims=True))",
        "np.add.at(found, ids, rows.sum(axis=0))",
        "np.add.at(found, ids, rows.mean(axis=0, keepdims=True))",
        "np.add.at(ids, found, rows.sum(axis=0, keepdims=True))",
        "found[ids] += rows.sum(axis=0, keepdims=True)",
        "return found[1 + 1:] if len(ids) > 2 else -found",
        "return found[1:] if len(ids) >= 2 else -found",
        "return found[1:] if len(ids) > 2 else found",
        "return found[1:] if len(ids) > 3 else -found",
        "return None",
        "pass",
    ):
        assert after in made
    assert not any("outside" in mutant.before for mutant in made.values())
    assert made["return None"].diff.count("\n-") == 1


def test_a_good_course_passes_and_is_not_audited_twice(exported_tree: Path, run_tito: RunTito) -> None:
    list_equivalent(exported_tree, CUT_OFF)
    first = run_tito(exported_tree, "audit", "01", "02")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "01_setup: ok, score 100.0%" in first.stdout
    assert "02_tensor: ok, score 100.0%: 8 mutants killed, 0 survived, 1 equivalent" in first.stdout
    assert "unchanged" not in first.stdout
    again = run_tito(exported_tree, "audit", "02")
    assert again.returncode == 0
    assert "unchanged since the last audit" in again.stdout
    edit(exported_tree, "Tensors add up", "Tensors are added")
    assert "unchanged" not in run_tito(exported_tree, "audit", "02").stdout


def test_a_weak_test_is_shown_the_mutant_that_it_lets_through(exported_tree: Path, run_tito: RunTito) -> None:
    edit(exported_tree, "add(Tensor([1]), Tensor([2])).data, [3.0]", "add(Tensor([1]), Tensor([0])).data, [1.0]")
    edit(exported_tree, "add(Tensor(hidden_pair[0]), Tensor(hidden_pair[1])).data, hidden_pair.sum(axis=0)", "[1], [1]")
    done = run_tito(exported_tree, "audit", "02")
    assert done.returncode == 1
    assert "-    added_values = left.data + right.data\n+    added_values = left.data - right.data\n" in done.stdout
    assert "02_tensor: weak" in done.stdout


def test_an_equivalent_mutant_is_not_counted_if_it_survives(exported_tree: Path, run_tito: RunTito) -> None:
    run_tito(exported_tree, "audit", "02")
    list_equivalent(exported_tree, CUT_OFF, CUT_OFF | {"after": "return right"})
    done = run_tito(exported_tree, "audit", "02", "--json")
    report = json.loads(done.stdout)[0]
    assert done.returncode == 1
    assert (report["equivalent"], report["survivors"]) == (1, [])
    assert len(report["problems"]) == 1
    assert "no mutant of tensor-add turns `return Tensor(added_values)` into `return right`" in report["problems"][0]
    list_equivalent(exported_tree, {"module": "02_tensor"})
    broken = run_tito(exported_tree, "audit", "02")
    assert broken.returncode == 1
    assert "the list of equivalent mutants cannot be read" in broken.stderr


def test_a_lazy_student_is_caught(exported_tree: Path, run_tito: RunTito) -> None:
    edit(exported_tree, "close(add(Tensor([1]), Tensor([2])).data, [3.0], ", "str(")
    edit(exported_tree, "close(add(Tensor(hidden_pair[0]), ", "came = list(add(Tensor(hidden_pair[0]), ")
    edit(
        exported_tree,
        '.data, hidden_pair.sum(axis=0), "any values")',
        ".data); assert all(got == want for got, want in zip(came, hidden_pair.sum(axis=0), strict=False))",
    )
    done = run_tito(exported_tree, "audit", "02")
    assert done.returncode == 1
    student = "lets tensor-add answer an empty array in a Tensor"
    assert f"test-tensor-add is passed by a student who {student}" in done.stdout


def test_a_test_that_fails_with_the_solution_is_named(exported_tree: Path, run_tito: RunTito) -> None:
    edit(exported_tree, '[3.0], "add the arrays"', '[4.0], "add the arrays"')
    done = run_tito(exported_tree, "audit", "02")
    assert done.returncode == 1
    assert "test-tensor-add fails with the solution: AssertionError: result at [0]: expected 4, got 3" in done.stdout


def test_a_test_that_believes_an_object_is_refused_unless_accepted(exported_tree: Path, run_tito: RunTito) -> None:
    list_equivalent(exported_tree, CUT_OFF)
    edit(exported_tree, "def test_add():\n", "def test_add():\n    assert Tensor([1])\n")
    refused = run_tito(exported_tree, "audit", "02")
    assert refused.returncode == 1
    assert "test-tensor-add, line 2 of the cell: `Tensor([1])`: a student's object says by itself" in refused.stdout
    accepted = exported_tree / "tests" / "accepted_lint.yaml"
    entry = {"module": "02_tensor", "cell": "test-tensor-add", "code": "Tensor([1])", "reason": "a trial"}
    accepted.write_text(json.dumps([entry]), encoding="utf-8")
    assert run_tito(exported_tree, "audit", "02").returncode == 0
    assert run_tito(exported_tree, "audit", "--lint", "02").returncode == 0
    accepted.write_text(json.dumps([entry, entry | {"code": "Tensor([2])"}]), encoding="utf-8")
    stale = run_tito(exported_tree, "audit", "02")
    assert stale.returncode == 1
    assert "tests/accepted_lint.yaml: nothing is wrong in test-tensor-add with `Tensor([2])`" in stale.stdout
    accepted.write_text(json.dumps([entry | {"reason": ""}]), encoding="utf-8")
    assert "the list of accepted places cannot be read" in run_tito(exported_tree, "audit", "--lint", "02").stderr


def test_a_mutant_that_never_ends_is_killed(exported_tree: Path, run_tito: RunTito) -> None:
    list_equivalent(exported_tree, CUT_OFF)
    edit(
        exported_tree,
        "    added_values = left.data + right.data\n",
        "    added_values = left.data\n    while added_values is left.data:\n"
        "        added_values = left.data + right.data\n",
    )
    done = run_tito(exported_tree, "audit", "02")
    assert "02_tensor: ok, score 100.0%" in done.stdout


def test_a_workspace_has_nothing_to_audit(workspace: Path, run_tito: RunTito) -> None:
    done = run_tito(workspace, "audit", "02")
    assert done.returncode == 1
    assert "there are no solutions to audit" in done.stderr
