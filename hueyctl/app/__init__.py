"""The use cases, for the command line and the Python API alike: typed values in, records out, nothing printed."""
