"""Settings files of complete runs, found by name."""
