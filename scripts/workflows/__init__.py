"""The example workflows' generator: descriptions, and what turns them into the front end's files."""
