"""``python -m tito`` is the same as ``tito``."""

from tito.cli.main import main

if __name__ == "__main__":
    main()
