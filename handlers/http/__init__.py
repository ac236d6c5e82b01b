"""The HTTP server, its handlers, and the checks of a request before a handler sees it."""
