"""`python -m mnist_nbdev` is the command `mnist-nbdev`."""

from mnist_nbdev.cli.cli import script

if __name__ == "__main__":
    script()
