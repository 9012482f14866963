"""What a run keeps on disk: files named by their content, a ledger, writes that happen whole or not at all."""
