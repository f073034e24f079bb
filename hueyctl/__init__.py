"""hueyctl: a durable job runner on Huey, declared in one file."""

__version__ = "0.1.0"
