"""How fast saves and loads are, beside the peers and beside what the machine allows.

`python -m benchmarks` (or `make bench`) measures and writes `RESULTS.md`.
"""
