"""``tito release``: the workspace that students get, and everything that stops one from being written."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest

from tito.course import Course
from tito.leaks import find_leaks
from tito.source import read_notebook
from tito.student import NBGRADER_SETTINGS, student_notebook

SECRET = "added_values = left.data + right.data"  # in a solution of 02_tensor
HIDDEN = "hidden_draw = np.random.default_rng().normal(size=(3, 2))"
RUBRIC = "Full marks for four megabytes with the reason."
SOURCE = "modules/02_tensor/tensor_dev.py"
SECRETS = {
    "solution": (SECRET, "added_values"),
    "hidden test": (HIDDEN, "hidden_draw"),
    "mark scheme": (RUBRIC, "Full marks"),
    "model answer": ("Each float32 takes four bytes, so four megabytes.", "Each float32"),
}


def files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir()}


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def append(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def line_of(path: Path, words: str) -> int:
    lines = path.read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, start=1) if words in line)


def refused(done: subprocess.CompletedProcess[str], parent: Path, target: str) -> str:
    """What a refused release says; it must have left nothing in ``parent``."""
    assert done.returncode == 1, done.stdout
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ") and "Traceback" not in done.stderr
    assert not [path.name for path in parent.iterdir() if target in path.name]
    return done.stderr


# ---- what a workspace holds


def test_a_workspace_holds_what_students_need_and_nothing_else(author_tree, run_tito, tmp_path):
    append(author_tree / "modules/02_tensor/students/wrong.py", "x = 1\n")
    append(author_tree / "tests/modules/__pycache__/test_01_setup.cpython-311.pyc", "x")
    append(author_tree / "milestones/01_1957_perceptron/perceptron.py", "print('perceptron')\n")
    run_tito(author_tree, "export")
    done = run_tito(author_tree, "release", tmp_path / "class")
    assert done.returncode == 0, done.stderr
    assert f"3 modules to {tmp_path / 'class'}" in done.stdout and "Next: " in done.stdout
    expected = {"README.md", "LICENSE", "settings.ini", "pyproject.toml", "milestones/01_1957_perceptron/perceptron.py"}
    expected |= {"tinytorch/utils/__init__.py", "tinytorch/utils/data.py"}
    expected |= {name for name in ["constraints.txt"] if (author_tree / name).exists()}
    for name in ("01_setup", "02_tensor", "06_autograd"):
        expected |= {
            f"modules/{name}/{file}" for file in (f"{name[3:]}.ipynb", "README.md", "module.yaml", "hints.yaml")
        }
        expected |= {f"tests/modules/test_{name}.py", f".tito/release/{name}.ipynb"}
    faces = {"nn/__init__.py", "nn/functional.py", "nn/utils.py", "optim/__init__.py", "optim/lr_scheduler.py"}
    library = {"__init__.py", "_face.py", "core/__init__.py", *faces}
    expected |= {f"tinytorch/{name}" for name in library}
    tool = {name for name in files(author_tree) if name.startswith("tito/") and "__pycache__" not in name}
    assert files(tmp_path / "class") == expected | tool
    assert sorted(path.name for path in tmp_path.iterdir()) == ["author", "class"]


def test_the_settings_keep_their_comments_and_say_workspace(author_tree, workspace):
    before = (author_tree / "settings.ini").read_text(encoding="utf-8").splitlines()
    after = (workspace / "settings.ini").read_text(encoding="utf-8").splitlines()
    assert [line for line in after if line not in before] == ["kind = workspace"]
    assert len(after) == len(before)
    assert Course(workspace).is_workspace


def test_the_readme_lists_the_modules_and_how_to_begin(workspace):
    text = (workspace / "README.md").read_text(encoding="utf-8")
    assert ".venv/bin/pip install -c constraints.txt -e '.[course]'" in text
    assert "| 06 | [Autograd](modules/06_autograd/README.md) | Foundations | 01, 02 | 2 |" in text
    assert "tito module start 01" in text and "$" not in text


def test_tito_and_the_package_work_in_a_workspace(workspace, run_tito):
    assert run_tito(workspace, "--help").returncode == 0
    program = (
        "import os, tinytorch.core as c; print(os.listdir(c.__path__[0])); from tinytorch.core.tensor import Tensor"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", program],
        cwd=workspace,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(workspace)},
    )
    assert done.stdout.strip() == "['__init__.py']"
    assert (
        "tinytorch.core.tensor is not built yet: finish module 02, then run: tito module complete 02"
        in done.stderr.splitlines()[-1]
    )


def test_a_workspace_is_not_released(workspace, run_tito, tmp_path):
    assert "student's workspace" in refused(run_tito(workspace, "release", tmp_path / "new"), tmp_path, "new")


def test_json_tells_what_was_made_and_an_empty_folder_will_do(author_tree, run_tito, tmp_path):
    (tmp_path / "class").mkdir()
    done = run_tito(author_tree, "release", "../class", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "workspace": str(tmp_path / "class"),
        "modules": ["01_setup", "02_tensor", "06_autograd"],
    }
    assert (tmp_path / "class/modules/02_tensor/tensor.ipynb").is_file()


def test_the_same_course_gives_the_same_release(workspace, author_tree, run_tito, tmp_path):
    run_tito(author_tree, "release", tmp_path / "again")
    released = {name for name in files(workspace) if not name.endswith(".pyc")}  # the bytecode came later
    assert files(tmp_path / "again") == released
    for name in released:
        assert (tmp_path / "again" / name).read_bytes() == (workspace / name).read_bytes(), name


def test_the_pristine_copies_are_the_notebooks(workspace):
    for module in Course(workspace).modules:
        assert module.pristine.read_bytes() == module.notebook.read_bytes()


# ---- student notebooks


def test_a_students_notebook_has_stubs_in_place_of_answers(workspace):
    notebook = nbformat.read(workspace / "modules/02_tensor/tensor.ipynb", as_version=4)
    cells = {cell["id"]: cell for cell in notebook.cells}
    assert "    # YOUR CODE HERE\n    raise NotImplementedError()" in cells["tensor-add"].source
    assert cells["test-tensor-add"].metadata.editable is False
    assert cells["tensor-memory"].source == "YOUR ANSWER HERE"
    assert cells["tensor-memory-question"].source.strip() == "How much memory do a million values take?"
    for secret, _ in SECRETS.values():
        assert not any(secret in cell.source for cell in notebook.cells)


def test_student_notebooks_are_those_of_nbgrader(author_tree, tmp_path):
    """Against the real ``nbgrader generate_assignment``: cells, ids, metadata and checksums."""
    module = Course(author_tree).module("02")
    notebook = read_notebook(module)
    notebook.cells[2]["outputs"] = [nbformat.v4.new_output("stream", text="left over")]
    root = tmp_path / "nbgrader"
    source = root / "source" / module.slug / module.notebook.name
    source.parent.mkdir(parents=True)
    nbformat.write(notebook, source)
    settings = [
        f"c.{step}.{name} = {value!r}" for step, traits in NBGRADER_SETTINGS.items() for name, value in traits.items()
    ]
    (root / "nbgrader_config.py").write_text("\n".join(["c = get_config()", *settings]), encoding="utf-8")
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # nbgrader starts alembic by name
    subprocess.run(
        [sys.executable, "-m", "nbgrader", "generate_assignment", module.slug],
        cwd=root,
        check=True,
        capture_output=True,
        env=os.environ | {"PATH": programs},
    )
    theirs = nbformat.read(root / "release" / module.slug / source.name, as_version=4)
    ours = student_notebook(notebook)
    assert ours.cells == theirs.cells
    assert ours.metadata == theirs.metadata
    assert notebook.cells[2]["outputs"], "the caller's notebook was changed"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("    return Tensor(added_values)\n    ### END SOLUTION\n", "", ["no end solution", "cell tensor-add"]),
        (
            '"grade_id": "tensor-memory", "locked": false, "points"',
            '"grade_id": "tensor-memory", "locked": false, "score"',
            ["cell tensor-memory"],
        ),
    ],
)
def test_a_source_that_nbgrader_refuses(author_tree, run_tito, tmp_path, old, new, words):
    edit(author_tree / SOURCE, old, new)
    said = refused(run_tito(author_tree, "release", tmp_path / "class"), tmp_path, "class")
    assert all(word in said for word in [*words, SOURCE, "next:"]), said


# ---- the leak check


def test_a_release_that_leaks_is_not_written(author_tree, run_tito, tmp_path):
    readme = author_tree / "modules/01_setup/README.md"
    append(readme, f"\n    {SECRET}\n")
    append(author_tree / "milestones/01_1957_perceptron/gradebook.db", "")
    said = refused(run_tito(author_tree, "release", tmp_path / "class"), tmp_path, "class")
    assert f"modules/01_setup/README.md:{line_of(readme, SECRET)}: {SECRET!r}" in said
    assert f"is a secret of {SOURCE}:{line_of(author_tree / SOURCE, SECRET)}" in said
    assert "milestones/01_1957_perceptron/gradebook.db: a gradebook" in said
    assert "2 things" in said and "next:" in said


def test_the_check_finds_nothing_in_a_good_release(author_tree, workspace):
    assert find_leaks(Course(author_tree), workspace) == []


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize(
    "place",
    ["README.md", "tests/modules/test_06_autograd.py", "tito/testing.py", "milestones/x/data.txt", "settings.ini"],
)
def test_every_secret_is_found_in_every_text_file(author_tree, workspace, secret, place):
    line, words = SECRETS[secret]
    append(workspace / place, f"harmless\n\t{line}  \n")
    (leak,) = find_leaks(Course(author_tree), workspace)
    assert leak.place == f"{place}:{line_of(workspace / place, line)}"
    assert words in leak.problem and f"{SOURCE}:{line_of(author_tree / SOURCE, line)}" in leak.problem


@pytest.mark.parametrize("before", ["# ", "## ", "> ", ">>> ", "- ", "+ ", "#   "])
def test_a_comment_or_a_quotation_is_no_disguise(author_tree, workspace, before):
    append(workspace / "README.md", f"{before}{SECRET}\n")
    assert [leak.place for leak in find_leaks(Course(author_tree), workspace)]


def in_source(cell: nbformat.NotebookNode) -> None:
    cell["source"] += f"\n{SECRET}"


def in_stream(cell: nbformat.NotebookNode) -> None:
    cell["outputs"] = [nbformat.v4.new_output("stream", text=f"x\n{SECRET}\n")]


def in_result(cell: nbformat.NotebookNode) -> None:
    cell["outputs"] = [nbformat.v4.new_output("display_data", data={"text/html": f"<pre>\n{SECRET}\n</pre>"})]


def in_traceback(cell: nbformat.NotebookNode) -> None:
    cell["outputs"] = [nbformat.v4.new_output("error", ename="E", evalue="e", traceback=[f"  {SECRET}"])]


def in_metadata(cell: nbformat.NotebookNode) -> None:
    cell["metadata"]["old_source"] = SECRET


@pytest.mark.parametrize("leak_it", [in_source, in_stream, in_result, in_traceback, in_metadata])
def test_secrets_are_found_anywhere_in_a_notebook(author_tree, workspace, leak_it: Callable):
    path = workspace / "modules/06_autograd/autograd.ipynb"
    notebook = nbformat.read(path, as_version=4)
    leak_it(notebook.cells[1])
    nbformat.write(notebook, path)
    (leak,) = find_leaks(Course(author_tree), workspace)
    assert leak.place == "modules/06_autograd/autograd.ipynb cell autograd-001"
    assert SECRET in leak.problem


def zipped(**files: str | bytes) -> bytes:
    """An archive of ``files``; the last dot of a name is written as two underscores."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as writing:
        for name, content in files.items():
            writing.writestr(".".join(name.rsplit("__", 1)), content)
    return archive.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("data/x.json", json.dumps({"old": [f"x\n{SECRET}\n"]}).encode(), "data/x.json"),
        ("data/x.zip", zipped(notes__txt=f"x\n{SECRET}\n"), "data/x.zip!notes.txt:2"),
        ("data/x.npz", zipped(a__json=json.dumps({"code": f"x\n{SECRET}\n"})), "data/x.npz!a.json"),
        ("data/x.bin", zipped(inner__zip=zipped(a__md=SECRET)), "data/x.bin!inner.zip!a.md:1"),
        ("data/x.txt", b"harmless\n" + zipped(a__md=SECRET), "data/x.txt!a.md:1"),
        ("data/x.zip", zipped(tensor_dev__py="x = 1"), "data/x.zip!tensor_dev.py"),
        ("data/x.zip", zipped(a__ipynb='{"cells": [{"source": "### BEGIN SOLUTION"}]}'), "data/x.zip!a.ipynb cell 0"),
        ("data/x.zip", zipped(a__txt="x" * 99).replace(b"a.txt", b"b.txt", 1), "data/x.zip"),  # damaged
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value,  # an archive holds the time at which it was made
)
def test_secrets_are_found_in_json_and_in_archives(author_tree, workspace, name, content, place):
    path = workspace / name
    path.parent.mkdir()
    path.write_bytes(content)
    (leak,) = find_leaks(Course(author_tree), workspace)
    assert leak.place == place


def test_an_archive_without_secrets_may_be_released(author_tree, workspace):
    (workspace / "digits.npz").write_bytes(zipped(a__txt="harmless", b__json='{"x": 1}'))
    assert find_leaks(Course(author_tree), workspace) == []


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("milestones/tensor_dev.py", "x = 1", "an author's source"),
        ("modules/02_tensor/students/wrong.py", "x = 1", "a Python file among the notebooks"),
        (".tito/gradebook.db", "", "a gradebook"),
        ("modules/02_tensor/copy.ipynb", "not JSON", "not a notebook"),
        ("modules/02_tensor/copy.ipynb", '{"cellar": []}', "not a notebook"),
        ("modules/02_tensor/copy.ipynb", '{"cells": [{"source": ["### BEGIN SOLUTION\\n", "y\\n"]}]}', "a marker"),
        ("modules/02_tensor/copy.ipynb", '{"cells": [{"source": "### BEGIN HIDDEN TESTS"}]}', "a marker"),
        ("modules/02_tensor/copy.ipynb", '{"cells": [{"source": "=== BEGIN MARK SCHEME ==="}]}', "a marker"),
    ],
)
def test_files_that_have_no_place_in_a_release(author_tree, workspace, name, text, problem):
    append(workspace / name, text)
    (leak,) = find_leaks(Course(author_tree), workspace)
    assert leak.place.startswith(name) and problem in leak.problem


def test_links_have_no_place_in_a_release(author_tree, run_tito, tmp_path):
    (author_tree / "milestones").mkdir()
    (author_tree / "milestones/answers").symlink_to(author_tree / "modules")
    (author_tree / "milestones/gone").symlink_to(author_tree / "nowhere")
    said = refused(run_tito(author_tree, "release", tmp_path / "class"), tmp_path, "class")
    assert "milestones/answers: a symbolic link" in said and "milestones/gone: a symbolic link" in said


@pytest.mark.parametrize(
    "line", ["pass", "else:", "return", "try:", ")", "return 0.5", "# ----", "", "[1, 2e-3], (3,)"]
)
def test_lines_that_tell_nothing_are_no_secrets(author_tree, workspace, line):
    edit(author_tree / SOURCE, "### BEGIN SOLUTION\n", f"### BEGIN SOLUTION\n    {line}\n")
    append(workspace / "README.md", f"{line}\n")
    assert find_leaks(Course(author_tree), workspace) == []


def test_a_line_that_also_stands_in_the_open_is_no_secret_of_that_source(author_tree, workspace):
    line = "values = np.zeros(3)"
    edit(author_tree / SOURCE, "### BEGIN SOLUTION\n", f"### BEGIN SOLUTION\n    {line}\n")
    append(author_tree / SOURCE, f"\n# %%\n{line}\n")
    append(workspace / "README.md", f"{line}\n")
    assert find_leaks(Course(author_tree), workspace) == []
    other = author_tree / "modules/06_autograd/autograd_dev.py"
    edit(other, "### BEGIN SOLUTION\n", f"### BEGIN SOLUTION\n    {line}\n")
    (leak,) = find_leaks(Course(author_tree), workspace)
    assert "modules/06_autograd/autograd_dev.py" in leak.problem


def test_a_region_inside_another_does_not_end_it(author_tree, workspace):
    scheme = "# === BEGIN MARK SCHEME ===\n# A rubric.\n# === END MARK SCHEME ===\n# The rest of the answer.\n"
    edit(author_tree / SOURCE, "so four megabytes.\n", f"so four megabytes.\n{scheme}")
    append(workspace / "README.md", "The rest of the answer.\n")
    (leak,) = find_leaks(Course(author_tree), workspace)
    assert "The rest of the answer." in leak.problem


# ---- where a release may go


@pytest.mark.parametrize("folder", ["modules", "tinytorch", "tito", "tests/modules", "modules/02_tensor"])
def test_a_release_does_not_lie_inside_what_it_is_made_from(author_tree, run_tito, folder):
    done = run_tito(author_tree, "release", author_tree / folder / "class")
    assert "inside" in refused(done, author_tree / folder, "class")


def test_a_folder_that_is_not_empty(author_tree, run_tito, tmp_path):
    append(tmp_path / "class/thesis.txt", "mine")
    done = run_tito(author_tree, "release", tmp_path / "class")
    assert done.returncode == 1
    assert "not empty" in done.stderr and str(tmp_path / "class") in done.stderr and "next:" in done.stderr
    assert files(tmp_path / "class") == {"thesis.txt"}


@pytest.mark.parametrize("command", [["release"], ["nbgrader", "init"]])
def test_a_home_of_nobody(author_tree, run_tito, command):
    done = run_tito(author_tree, *command, "~nobody-of-this-name/class")
    assert done.returncode == 1
    assert "nobody here is called 'nobody-of-this-name'" in done.stderr and "Traceback" not in done.stderr


def test_a_file_a_missing_parent_and_a_parent_that_cannot_be_written(author_tree, run_tito, tmp_path):
    append(tmp_path / "note.txt", "mine")
    done = run_tito(author_tree, "release", tmp_path / "note.txt")
    assert done.returncode == 1 and "a file, not a folder" in done.stderr
    done = run_tito(author_tree, "release", tmp_path / "a/b/class")
    assert done.returncode == 1 and f"mkdir -p {tmp_path}/a/b" in done.stderr
    done = run_tito(author_tree, "release", "/proc/class")
    assert done.returncode == 1 and "cannot write the release" in done.stderr and "/proc" in done.stderr
    assert run_tito(author_tree, "release").returncode == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["author", "note.txt"]


def test_ctrl_c_leaves_nothing_behind(author_tree, tmp_path):
    target = tmp_path / "out" / "class"
    target.parent.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "tito", "release", str(target)],
        cwd=author_tree,
        env=os.environ | {"PYTHONPATH": str(author_tree)},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not list(target.parent.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert list(target.parent.iterdir()), "the release was never begun"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130 and "Stopped" in said
    assert list(target.parent.iterdir()) == []
