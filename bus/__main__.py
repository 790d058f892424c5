"""``python -m bus`` is ``busbar``."""

from bus.cli import main

if __name__ == "__main__":
    main()
