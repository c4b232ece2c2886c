"""The ICTCore dialect as the guide documents it."""
