"""The wire format, without I/O: codes, and the frames of protocol v1 and v2."""
