"""Scripted outcomes without a network: demo, API tests, dry runs and bench."""
