"""Measurements of the product: `make bench`, or `make bench ARGS="trigger"` for one of them.

A benchmark is a file with a function `measure` that is registered in `tests/benchmarks/__main__.py`.
"""
