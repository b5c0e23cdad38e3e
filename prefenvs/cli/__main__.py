"""`python -m prefenvs.cli`."""

from prefenvs.cli import main

if __name__ == "__main__":
    main()
