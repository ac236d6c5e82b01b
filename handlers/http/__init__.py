"""The HTTP server, its handlers, and what a request must pass before a handler sees it."""
