"""The engines: everything that speaks to MongoDB, Redis or MySQL, and the private instances of all three."""
