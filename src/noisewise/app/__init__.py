"""What people meet: the command line, the report, the demo. Only this floor prints."""
