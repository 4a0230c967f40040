"""Runs: the service that starts, stops and asks them, the store that keeps them, and the executors that run them."""
