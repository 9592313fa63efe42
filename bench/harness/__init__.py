"""The parts of the benchmark harness; bench/run.py is its command line."""
