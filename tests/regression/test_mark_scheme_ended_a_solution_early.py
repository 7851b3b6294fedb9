"""A mark scheme inside a solution ended the solution: the lines after it were taken for public."""

from tito.source import split_secret

SOURCE = """public
### BEGIN SOLUTION
first secret
=== BEGIN MARK SCHEME ===
second secret
=== END MARK SCHEME ===
third secret
### END SOLUTION
public again"""


def test_lines_after_an_inner_region_are_still_secret():
    secret, public = split_secret(SOURCE)
    assert [line.text for line in secret] == ["first secret", "second secret", "third secret"]
    assert public == ["public", "public again"]
