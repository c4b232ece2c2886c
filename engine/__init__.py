"""The dialer: pure domain and scheduling. Imports no web, no wire protocol, no pjsua2."""
