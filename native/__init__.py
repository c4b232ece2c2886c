"""The only place where C lives or is imported."""
