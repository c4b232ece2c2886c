"""The RTP engine: C, one process of its own, driven over a stream."""
