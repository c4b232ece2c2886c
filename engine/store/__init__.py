"""The engine's memory, behind one Protocol (base.py)."""
