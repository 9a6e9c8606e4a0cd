"""Client library for the gateway."""
