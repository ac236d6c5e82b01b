"""Accounts and authentication: signing up and in, tokens, and closing the sockets of ended sessions."""
