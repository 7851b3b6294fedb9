"""Grading where the student's code is not: it runs in a sandbox, and the tests run here, against proxies."""
