"""A service that says hello, and which version of it does."""
