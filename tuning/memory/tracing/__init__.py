"""What makes the memory tables: one update traced without weights, fitted to polynomials in the sizes of a batch."""
