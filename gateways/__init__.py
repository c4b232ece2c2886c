"""How a service leaves the building; each folder implements engine.gateway.Gateway."""
