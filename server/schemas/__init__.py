"""Request bodies, checked by pydantic. A field that API.md does not list is refused by name, never ignored."""
