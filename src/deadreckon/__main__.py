"""``python -m deadreckon`` is the program."""

from deadreckon.cli import run

if __name__ == "__main__":
    run()
