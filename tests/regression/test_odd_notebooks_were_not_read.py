"""A byte order mark, or cell ids that nbformat does not know, kept a whole notebook from being graded."""

import json

import nbformat.v4 as nbv4
import pytest

from tito.repair import read_file


@pytest.mark.parametrize("odd", [None, 7, "", "a b", "x" * 65])
def test_a_cell_with_an_odd_id_is_a_cell(tmp_path, odd):
    notebook = nbv4.new_notebook(cells=[nbv4.new_code_cell("1 + 1")])
    notebook.cells[0]["id"] = odd
    (tmp_path / "odd.ipynb").write_text(json.dumps(notebook))
    assert read_file(tmp_path / "odd.ipynb", missing="", broken="").cells[0].source == "1 + 1"


def test_a_byte_order_mark_is_read_over(tmp_path):
    text = "\ufeff" + json.dumps(nbv4.new_notebook(cells=[nbv4.new_markdown_cell("hello")]))
    (tmp_path / "odd.ipynb").write_text(text, encoding="utf-8")
    assert read_file(tmp_path / "odd.ipynb", missing="", broken="").cells[0].source == "hello"
