"""pjsua2 signalling workers, each in a process of its own."""
