"""Code that ends where it should not, or never: each costs what it touches, and nobody else."""

from __future__ import annotations

from tests.attacks.corpus import HandIn, accident, attack, stopper

ONE_HOT = ["test-embeddings-one-hot"]
RIGHT = """
def one_hot_lookup(weight, ids):
    {line}
    hot = np.zeros((len(ids), weight.shape[0]), dtype=weight.dtype)
    hot[np.arange(len(ids)), ids] = 1
    return hot @ weight
"""


def _when_called(student: HandIn, *lines: str) -> None:
    """The right answer to the exercise one-hot, after ``lines``."""
    student.answer("embeddings-one-hot", RIGHT.format(line="\n    ".join(lines)))


@accident(stock="fails", costs=ONE_HOT)
def exits_when_called(student: HandIn) -> None:
    """`os._exit` where the answer is computed."""
    _when_called(student, "import os; os._exit(0)")


@accident(stock="fails", unsure=ONE_HOT)
def exits_once(student: HandIn) -> None:
    """`os._exit` in the cell itself, below a right answer."""
    student.end("embeddings-one-hot", "import os\nos._exit(0)")


@accident(stock="fails")
def exits_in_a_cell_of_its_own(student: HandIn) -> None:
    """An extra cell that ends the process; no answer needs it."""
    student.extra("import os\nos._exit(3)", after="test-embeddings-gradient")


@accident(stock="fails")
def quits_at_the_end(student: HandIn) -> None:
    """`exit()` in an extra cell, left over from an experiment."""
    student.extra("exit()", after="test-embeddings-manifest")


@accident(stock="right", unsure=ONE_HOT)
def calls_sys_exit(student: HandIn) -> None:
    """`sys.exit` below an answer."""
    student.end("embeddings-one-hot", "import sys\nsys.exit('done')")


@accident(stock="fails", unsure=ONE_HOT)
def is_killed_by_a_signal(student: HandIn) -> None:
    """SIGKILL from its own hand, which the first process of a sandbox does not feel."""
    _when_called(student, "import os; os.kill(os.getpid(), 9)")


@accident(stock="fails", costs=ONE_HOT)
def crashes_in_c(student: HandIn) -> None:
    """A segmentation fault."""
    _when_called(student, "import ctypes; ctypes.string_at(0)")


@accident(stock="fails", costs=ONE_HOT)
def aborts(student: HandIn) -> None:
    """`abort()`, as a C library does it."""
    _when_called(student, "import os; os.abort()")


@stopper(stock="fails", unsure=ONE_HOT)
def stops_itself(student: HandIn) -> None:
    """SIGSTOP: the process is there, and never answers; the first process of a sandbox does not feel it either."""
    _when_called(student, "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)")


@stopper(stock="untried", costs=ONE_HOT)
def sends_signals_to_everybody(student: HandIn) -> None:
    """SIGINT to the parent and the process group; the grader's included, if it is in it."""
    _when_called(
        student,
        "import os, signal",
        "signal.signal(signal.SIGINT, signal.SIG_IGN)",
        "os.kill(os.getppid(), signal.SIGINT) if os.getppid() > 1 else None",
        "raise ValueError",
    )


@stopper(stock="right", costs=ONE_HOT)
def loops_for_ever(student: HandIn) -> None:
    """`while True`, with its condition wrong."""
    _when_called(student, "while True: pass")


@stopper(stock="right", costs=ONE_HOT)
def loops_and_swallows_the_interrupt(student: HandIn) -> None:
    """`except:` without a name catches the KeyboardInterrupt that was to end the loop."""
    _when_called(
        student, "while True:", "    try:", "        while True: pass", "    except BaseException:", "        pass"
    )


@stopper(stock="right", unsure=ONE_HOT)
def loops_in_the_cell(student: HandIn) -> None:
    """A loop below a right answer."""
    student.end("embeddings-one-hot", "while True:\n    pass")


@stopper(stock="right", costs=ONE_HOT)
def sleeps(student: HandIn) -> None:
    """A minute is longer than a cell may take."""
    _when_called(student, "import time; time.sleep(60)")


@stopper(stock="right", costs=ONE_HOT)
def loops_in_c(student: HandIn) -> None:
    """A regular expression that backtracks for ever never looks for signals."""
    _when_called(student, "import re; re.match('(a+)+$', 'a' * 60 + 'b')")


@stopper(stock="right", costs=ONE_HOT)
def computes_a_huge_number(student: HandIn) -> None:
    """One operation of integers that takes minutes and holds the interpreter's lock."""
    _when_called(student, "3 ** (10 ** 9)")


@stopper(stock="right", costs=ONE_HOT)
def waits_for_a_lock(student: HandIn) -> None:
    """A deadlock with itself."""
    _when_called(student, "import threading; lock = threading.Lock(); lock.acquire(); lock.acquire()")


@stopper(stock="untried", costs=ONE_HOT)
def asks_for_input(student: HandIn) -> None:
    """`input()`: nobody is there to answer."""
    _when_called(student, "input('how many? ')")


@stopper(stock="untried", costs=ONE_HOT)
def reads_stdin(student: HandIn) -> None:
    """The same by the file."""
    _when_called(student, "import os; data = os.read(0, 10); raise ValueError(data)")


@accident(stock="untried", costs=ONE_HOT)
def recurses_for_ever(student: HandIn) -> None:
    """A function that calls itself."""
    _when_called(student, "return one_hot_lookup(weight, ids)")


@stopper(stock="untried", costs=ONE_HOT)
def recurses_until_the_stack_ends(student: HandIn) -> None:
    """Without Python's limit the C stack runs out."""
    _when_called(student, "def deeper(x): return sorted([x], key=deeper)", "deeper(0)")
    student.begin("embeddings-one-hot", "import sys\nsys.setrecursionlimit(10**8)")


@stopper(stock="untried", costs=ONE_HOT)
def takes_all_memory(student: HandIn) -> None:
    """An array of four gigabytes, written to; a list of them while it lasts."""
    _when_called(student, "hoard = [np.ones(2**27) for _ in range(4)]", "raise ValueError(len(hoard))")


@stopper(stock="untried", costs=ONE_HOT)
def takes_memory_in_small_pieces(student: HandIn) -> None:
    """Twenty million small objects, two gigabytes."""
    _when_called(student, "hoard = [[i] for i in range(2 * 10**7)]", "raise ValueError(len(hoard))")


@stopper(stock="untried", unsure=ONE_HOT)
def starts_many_processes(student: HandIn) -> None:
    """A fork bomb of a thousand, each asleep for ten seconds."""
    _when_called(
        student,
        "import os, time",
        "for _ in range(1000):",
        "    try:",
        "        pid = os.fork()",
        "    except OSError:",
        "        break",
        "    if pid == 0:",
        "        time.sleep(10)",
        "        os._exit(0)",
    )


@stopper(stock="untried", unsure=ONE_HOT)
def starts_many_threads(student: HandIn) -> None:
    """Two thousand threads that keep the interpreter busy."""
    _when_called(
        student,
        "import threading, time",
        "end = time.time() + 1",
        "def spin():",
        "    while time.time() < end: pass",
        "for _ in range(2000):",
        "    try:",
        "        threading.Thread(target=spin, daemon=True).start()",
        "    except RuntimeError:",
        "        break",
    )


@stopper(stock="untried", unsure=ONE_HOT)
def fills_the_disk(student: HandIn) -> None:
    """Files of 64 MB, sixteen of them, wherever one can write."""
    _when_called(
        student,
        "import os, tempfile",
        "for place in ('.', tempfile.gettempdir(), '/dev/shm', '/var/tmp'):",
        "    try:",
        "        for number in range(4):",
        "            with open(f'{place}/filler-{number}', 'wb') as file:",
        "                for _ in range(64): file.write(b'x' * 2**20)",
        "    except OSError:",
        "        pass",
        "    finally:",
        "        for number in range(4):",
        "            try: os.unlink(f'{place}/filler-{number}')",
        "            except OSError: pass",
    )


@stopper(stock="untried", unsure=ONE_HOT)
def makes_a_sparse_giant(student: HandIn) -> None:
    """A file of a terabyte that takes no room."""
    _when_called(
        student,
        "import os",
        "try:",
        "    with open('giant', 'wb') as file: file.truncate(2**40)",
        "except OSError: pass",
        "finally: os.path.exists('giant') and os.unlink('giant')",
    )


@accident(stock="untried")
def needs_much_memory(student: HandIn) -> None:
    """A large array for a moment, which an honest answer may take."""
    _when_called(student, "large = np.zeros(40_000_000)", "del large")


@accident(stock="untried")
def leaves_processes_behind(student: HandIn) -> None:
    """A process in a session of its own that would go on for a while; `sleep 97.531` is looked for afterwards."""
    student.extra("""
        import subprocess, shutil
        if shutil.which("sleep"):
            subprocess.Popen(["sleep", "97.531"], start_new_session=True)
        """)


@accident(stock="untried")
def leaves_threads_behind(student: HandIn) -> None:
    """A thread that never ends, and is no daemon."""
    student.extra("import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()")


@accident(stock="untried")
def dies_at_exit(student: HandIn) -> None:
    """What runs when the interpreter ends comes too late to cost anything."""
    student.extra("import atexit, os, time\natexit.register(os._exit, 7)\natexit.register(time.sleep, 30)")


@accident(stock="untried")
def sets_an_alarm(student: HandIn) -> None:
    """An alarm clock that is never switched off."""
    student.extra("import signal\nsignal.signal(signal.SIGALRM, signal.SIG_IGN)\nsignal.alarm(1)")


@accident(stock="untried")
def ignores_signals(student: HandIn) -> None:
    """Signals switched off at the top."""
    student.extra("import signal\nfor number in (2, 15, 1): signal.signal(number, signal.SIG_IGN)")


@accident(stock="untried")
def goes_to_another_folder(student: HandIn) -> None:
    """`os.chdir`, and the folder is deleted."""
    student.extra("import os, tempfile\nhere = tempfile.mkdtemp()\nos.chdir(here)\nos.rmdir(here)\nos.chdir('/')")


@accident(stock="untried")
def clears_the_environment(student: HandIn) -> None:
    """`os.environ.clear()`."""
    student.extra("import os\nos.environ.clear()")


@accident(stock="untried")
def switches_the_collector_off(student: HandIn) -> None:
    """`gc.disable()` and a low recursion limit's opposite."""
    student.extra("import gc, sys\ngc.disable()\nsys.setrecursionlimit(5000)")


@accident(stock="untried", unsure=ONE_HOT)
def closes_stdout(student: HandIn) -> None:
    """Prints nothing any more; the answers are right."""
    student.extra("import sys\nsys.stdout = sys.stderr = None")


@attack(stock="untried", base="solved", costs=ONE_HOT)
def leaves_in_time(student: HandIn) -> None:
    """Ends the process with status 0 at the first test: one that ended well might count as passed."""
    student.answer("embeddings-one-hot", "def one_hot_lookup(weight, ids):\n    import sys\n    sys.exit(0)")


@attack(stock="untried")
def ends_before_any_test(student: HandIn) -> None:
    """Status 0 from the first cell on: a test that never ran has no error."""
    student.extra("import os\nos._exit(0)")


@attack(stock="untried")
def hangs_before_any_test(student: HandIn) -> None:
    """Grading that gives up has seen no error."""
    student.extra("import time\nwhile True:\n    time.sleep(1)")
