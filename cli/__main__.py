"""`python -m cli` is `darkroom`."""

from cli.main import main

if __name__ == "__main__":
    main()
