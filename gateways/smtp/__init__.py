"""The smtp gateway: e-mail out through relays or direct MX, bounces and mail that comes in."""
