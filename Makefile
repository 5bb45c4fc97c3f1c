.PHONY: demo test check format

demo:
	python3 scripts/dev.py demo

test:
	python3 scripts/dev.py test

check:
	python3 scripts/dev.py check

format:
	.venv/bin/python -m ruff check --fix .
	.venv/bin/python -m ruff format .
	npx --no biome check --write
