"""Everything a person or program touches: dialects, CLI, composition root."""
