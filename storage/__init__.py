"""The stores in MongoDB, Redis and MySQL, and embedded instances of these databases."""
