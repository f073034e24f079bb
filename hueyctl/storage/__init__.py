"""The store: the only place where CLI and worker meet, besides the bell."""
