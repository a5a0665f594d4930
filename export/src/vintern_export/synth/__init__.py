"""Random checkpoints of real models' shapes, for benchmarks and tests."""
