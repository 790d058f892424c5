"""Programs that use a bus; each runs by itself: ``python -m examples.quickstart``."""
