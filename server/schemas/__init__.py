"""Request bodies, checked by pydantic. Unknown fields are refused by name; those without effect must be neutral."""
