"""MySQL: the user table, accounts and ended sessions."""
