"""`python -m slipknot_controller`."""

from .main import main

if __name__ == "__main__":
    main()
