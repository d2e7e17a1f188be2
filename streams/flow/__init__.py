"""The way of a record: from raw bytes to acknowledged lists, through ports and decisions only."""
