"""The published ``compress.py`` command line; ``ohmq --help`` shows the modern one."""

from ohmq.cli import run_published

if __name__ == "__main__":
    run_published("compress")
