"""``python -m ohmq``."""

from ohmq.cli import main

if __name__ == "__main__":
    main()
