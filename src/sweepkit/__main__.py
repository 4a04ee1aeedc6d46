"""``python -m sweepkit``: the command ``sweep``."""

from sweepkit.cli import main

if __name__ == "__main__":
    main()
