"""What a course needs of a machine: each thing is looked at as it will be used, and comes with a cure if it fails."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from shlex import quote

from tito.course import Course
from tito.errors import TitoError

_EXTRA = "course"
INSTALL = f"{quote(sys.executable)} -m pip install -c constraints.txt -e '.[{_EXTRA}]'   (in the folder of the course)"


@dataclass(frozen=True)
class Check:
    """One thing looked at: what was found, and if it is not well, how to mend it.

    ``needed`` is False for what only some people need.
    """

    name: str
    ok: bool
    found: str
    mend: str = ""
    needed: bool = True


def examine(course: Course) -> Iterator[Check]:
    """Every check, each as soon as it is done."""
    yield _python()
    yield from _packages()
    yield _own_package(course)
    yield _kernel(course)
    yield _jupyter_kernel()
    yield from folders(course)
    if not course.is_workspace:
        yield _isolation()


def _python() -> Check:
    from packaging.specifiers import SpecifierSet

    found = ".".join(map(str, sys.version_info[:3]))
    wanted = _requires_python()
    return Check(
        "Python",
        SpecifierSet(wanted).contains(found),
        f"{found}, {sys.executable}",
        f"install Python {wanted}, make a new environment with it, then: {INSTALL}",
    )


def _requires_python() -> str:
    try:
        return metadata.metadata("tinytorch")["Requires-Python"] or ""
    except metadata.PackageNotFoundError:
        return ""


def _packages() -> Iterator[Check]:
    """NumPy and what the extra for the course asks for, from the package's own metadata."""
    from packaging.requirements import Requirement

    try:
        listed = metadata.requires("tinytorch") or []
    except metadata.PackageNotFoundError:
        yield Check("tinytorch", False, "not installed in this environment", INSTALL)
        return
    for requirement in map(Requirement, listed):
        if requirement.marker is None or requirement.marker.evaluate({"extra": _EXTRA}):
            yield _package(requirement.name, str(requirement.specifier), requirement.specifier.contains)


def _package(name: str, wanted: str, suits: Callable[[str], bool]) -> Check:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Check(name, False, "not installed", INSTALL)
    if suits(version):
        return Check(name, True, version)
    return Check(name, False, f"{version}, but the course needs {wanted}", INSTALL)


def _own_package(course: Course) -> Check:
    """The ``tinytorch`` that a notebook gets is the one that this course exports to."""
    code = "import tinytorch; print(tinytorch.__file__)"
    with tempfile.TemporaryDirectory() as elsewhere:
        done = subprocess.run([sys.executable, "-c", code], cwd=elsewhere, capture_output=True, text=True)
    said = (done.stdout if done.returncode == 0 else done.stderr).strip().split("\n")[-1]
    ok = done.returncode == 0 and Path(said).resolve().parent == course.library.resolve()
    found = said if ok or done.returncode else f"import tinytorch gives that of another folder: {said}"
    return Check("import tinytorch", ok, found, INSTALL)


def _kernel(course: Course) -> Check:
    """A real kernel runs a cell."""
    try:
        import nbformat.v4 as nbv4

        from tito.runner import run_notebook

        notebook = nbv4.new_notebook(cells=[nbv4.new_code_cell("1 + 1")])
        run = run_notebook(course, course.modules[0], notebook)
    except (ImportError, TitoError) as error:
        return Check("kernel", False, str(error).split("\n")[0], INSTALL)
    cell = run.cells[0]
    found = f"starts and answers in {run.seconds:.1f} s" if cell.ok else f"{cell.ename}: {cell.evalue}"
    return Check("kernel", cell.ok, found, INSTALL)


def _jupyter_kernel() -> Check:
    """The kernel that JupyterLab starts for a notebook is of this environment."""
    name = "kernel in JupyterLab"
    try:
        from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
    except ImportError as error:
        return Check(name, False, str(error), INSTALL)
    try:
        spec = KernelSpecManager().get_kernel_spec("python3")
    except NoSuchKernel:
        mend = f"{quote(sys.executable)} -m ipykernel install --sys-prefix"
        return Check(name, False, "there is no kernel named python3", mend)
    python = Path(spec.argv[0])  # a bare `python` means the Python of the Jupyter that starts it
    ok = not python.is_absolute() or python.parent.resolve() == Path(sys.executable).parent.resolve()
    mend = f"remove the kernel in {spec.resource_dir}: {quote(sys.executable)} -m jupyter kernelspec remove python3"
    return Check(name, ok, "of this environment" if ok else f"of another Python: {python}", mend)


def folders(course: Course) -> Iterator[Check]:
    """Files can be made where they have to be."""
    modules = course.modules[0].folder.parent
    for folder in (modules, course.library / "core", course.root, Path(tempfile.gettempdir())):
        mend = f"make it writable for you: chmod -R u+w {quote(str(folder))}"
        try:
            with tempfile.TemporaryFile(dir=folder):
                yield Check("write access", True, str(folder))
        except OSError as error:
            yield Check("write access", False, f"{folder}: {error.strerror}", mend)


def _isolation() -> Check:
    """The sandbox that submissions are graded in; some machines have bubblewrap and do not allow it."""
    from tito.grading.isolated.sandbox import INSTALL_BUBBLEWRAP, why_not

    problem = why_not()
    mend = f"needed for grading only: {INSTALL_BUBBLEWRAP}"
    return Check("isolated grading", not problem, problem or "bubblewrap isolates a process", mend, needed=False)
