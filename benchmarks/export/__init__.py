"""Benchmarks of what people meet: the start of a command, an engine, a page to send."""
