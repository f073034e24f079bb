"""`hueyctl`, and `python -m hueyctl`."""

import signal


def main() -> None:
    """Run the command line of this process, and exit."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Until all is loaded, Ctrl-C just ends it: there is nothing to put in order, and nobody wants a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from hueyctl.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
