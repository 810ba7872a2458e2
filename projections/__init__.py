"""The read side: tables that follow the ledger, and can be dropped and replayed at any time."""
