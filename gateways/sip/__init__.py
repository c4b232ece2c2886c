"""Voice over SIP: pjsua2 workers for signalling, our own RTP engine for media."""
