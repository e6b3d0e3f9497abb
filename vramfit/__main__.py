"""`python -m vramfit`, as torchrun starts it."""

from vramfit.cli.main import main

if __name__ == "__main__":
    main()
