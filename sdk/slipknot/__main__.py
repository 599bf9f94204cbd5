"""`python -m slipknot` is the `slipknot` command."""

from .cli import main

if __name__ == "__main__":
    main()
