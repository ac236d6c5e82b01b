"""The chat without I/O: records, wire format, limit rule, and the pipeline of a message."""
