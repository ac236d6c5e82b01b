"""Token keys, tokens and password digests."""
