"""What the page shows of the data before Start: rows, tokens, lengths, notices, and facts of all rows."""
