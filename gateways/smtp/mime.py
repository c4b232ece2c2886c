from gateways.smtp.parsed import Parsed, ParsedBounce, ParsedFile, ParsedRecipient

__all__ = ["Parsed", "ParsedBounce", "ParsedFile", "ParsedRecipient"]
