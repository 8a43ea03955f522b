"""Training of teachers and generators: one file for each public function."""
