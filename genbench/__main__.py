"""`python -m genbench`: see genbench.cli."""

from genbench.cli import main

if __name__ == "__main__":
    main()
