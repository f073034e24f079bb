"""`python -m hueyctl` is `hueyctl`."""

from hueyctl.cli.main import main

if __name__ == "__main__":
    main()
