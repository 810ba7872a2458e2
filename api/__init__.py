"""HTTP: requests in, one call, answers out. No rules of credits live here."""
