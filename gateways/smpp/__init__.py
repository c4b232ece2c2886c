"""The smpp gateway: short messages through SMSCs (SMPP 3.4)."""
