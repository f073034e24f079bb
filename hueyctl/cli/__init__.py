"""The command line: the only importer of typer and rich. Commands give answers; `render` alone shows them."""
