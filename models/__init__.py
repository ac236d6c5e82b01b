"""What a chat is, without I/O: records, the wire's frames, the limit rule, and the steps of a message in order."""
