from typing import Any, NamedTuple
import time, tracemalloc, statistics
class Measurement(NamedTuple):
    result: Any
    median_s: float
    spread_s: float
    peak_bytes: int
def measure(function, *args, repeats=5, **kwargs):
    function(*args, **kwargs)
    ts = []
    for _ in range(repeats):
        t = time.perf_counter(); result = function(*args, **kwargs); ts.append(time.perf_counter() - t)
    tracemalloc.start(); function(*args, **kwargs); peak = tracemalloc.get_traced_memory()[1]; tracemalloc.stop()
    return Measurement(result, statistics.median(ts), max(ts) - min(ts), peak)
