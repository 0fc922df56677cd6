"""`python -m pipelines.cli` is the `tasteloop` command."""

from pipelines.cli.app import main

if __name__ == "__main__":
    main()
