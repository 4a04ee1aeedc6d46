"""``python -m sweepkit``: the command ``sweep``. Knows nothing else."""

from sweepkit.cli import main

if __name__ == "__main__":
    main()
