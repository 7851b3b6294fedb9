"""The figures that the prose of module 12 quotes are those of the benchmark that was kept."""

import csv
from pathlib import Path

MODULE = Path(__file__).parents[2] / "modules" / "12_embeddings"


def test_the_lookup_race_is_quoted_as_it_was_measured():
    prose = (MODULE / "embeddings_dev.py").read_text(encoding="utf-8")
    with (MODULE / "embedding_lookup.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["vocab_size"]) for row in rows] == [64, 1024, 50_000]
    for row in rows:
        lookup, one_hot, ratio = (float(row[name]) for name in ("lookup_ms", "one_hot_ms", "ratio"))
        product = f"{one_hot:.1f}" if one_hot < 10 else f"{one_hot:.0f}"
        line = f"# | {int(row['vocab_size']):,} | {lookup:.2f} ms | {product} ms | {ratio:,.0f} |"
        assert line in prose, line
        assert int(row["tokens"]) == 8192
