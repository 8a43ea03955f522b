"""One file for each command; `table` lists them."""
