"""Files of rows: which format they have, and their rows one by one, without the whole file in memory."""
