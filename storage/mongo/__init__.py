"""MongoDB: messages, conversations, positions and blocks."""
