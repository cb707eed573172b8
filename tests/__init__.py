"""The tests, in folders named by what they are about."""
