"""The interfaces: HTTP handlers and the WebSocket handler, which translate between the wire and `models`."""
