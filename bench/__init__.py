"""Benchmarks that compare, side by side in one run; not part of the installed packages."""
