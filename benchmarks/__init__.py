"""Benchmarks: the same work in Graphwright and its peers, side by side; see `benchmarks.run`."""
