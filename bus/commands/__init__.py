"""The commands of `busbar`, one file each; `bus.cli` gathers them."""
