"""Real peers of the smtp gateway: Postfix, Dovecot, dnsmasq."""
