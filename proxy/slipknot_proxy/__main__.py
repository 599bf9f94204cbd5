"""`python -m slipknot_proxy --config-json '{…}'`."""

from .main import main

if __name__ == "__main__":
    main()
