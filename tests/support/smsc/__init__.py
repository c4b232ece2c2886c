"""SMSCs of other makes in processes of their own: npm's ``smpp`` and Debian's Net::SMPP."""
