"""The use cases, for the command line and the Python API alike: typed values in, frozen records out, nothing printed."""
