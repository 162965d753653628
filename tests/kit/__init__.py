"""What the test suite, the benchmarks and the demos share. Nothing here is imported by the product."""
