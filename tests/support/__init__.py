"""Helpers of the tests: small models, a headless browser, a reference decoder."""
