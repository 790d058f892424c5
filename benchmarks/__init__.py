"""Benchmarks: what busbar does, each time beside the floor that bounds it, measured in the same run."""
