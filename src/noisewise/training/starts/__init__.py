"""Starting a training from the weights of another teacher: which one, and is it worth it."""
