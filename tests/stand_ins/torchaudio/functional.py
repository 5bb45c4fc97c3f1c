"""Nothing: what ComfyUI imports by name is not used where nothing is heard."""
