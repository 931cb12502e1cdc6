"""What the columns of tables are called, and which of them are no features of an image."""
