"""The WebSocket handler, its frames and transports, and the two protocol versions."""
