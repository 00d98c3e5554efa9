"""`python -m zeroq` is the command `zeroq`."""

from zeroq.cli import run

if __name__ == "__main__":
    run()
