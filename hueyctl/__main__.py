"""`hueyctl`, and `python -m hueyctl`."""

import gc
import signal


def main() -> None:
    """Run the command line of this process, and exit."""
    # What a command loads stays, and what it makes goes with it: to look for garbage among that after every few hundred
    # objects was an eighth of a large batch.
    gc.set_threshold(50_000, 20, 20)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Until all is loaded, Ctrl-C just ends it: there is nothing to put in order, and nobody wants a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from hueyctl.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
