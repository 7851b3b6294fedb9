"""Grading a class: nbgrader's course directory, its converters run student by student, and the scores they record."""
